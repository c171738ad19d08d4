// Streams, events and captured graphs of the emulated runtime.
//
// A stream is a queue. Work runs as late as it can: when a call waits for it, for work behind it or, through an event,
// for work in another stream. Under GSAE_EMULATION_SEED each call may also let some stream get ahead. So a result that
// is read without waiting, or a dependency between streams that nobody stated, shows as a wrong value. The queues are
// bounded, as a GPU's are. CUDA_LAUNCH_BLOCKING=1 makes every call wait, so that a report of the sanitizer names the
// launcher.
//
// A captured graph is the list of operations with their arguments as they were; launching it asks for the list again.

#include "emulation/streams.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "emulation/grid.h"
#include "emulation/runtime.h"

namespace emulation {
namespace {

constexpr size_t kMostOps = 1024;
constexpr size_t kMostHeldBytes = size_t(64) << 20;  // the staging memory of copies from pageable memory

std::vector<CUstream_st*> streams;  // in the order of their creation, so that a seed means the same every time
std::vector<std::unique_ptr<CUstream_st>> default_streams;  // one a device

// A fault that was met where no exception may leave. Nobody may have asked for it by the end of the process.
struct PendingFault {
  std::exception_ptr fault;
  ~PendingFault() {
    if (!fault) return;
    std::fputs("emulation: a kernel's fault was never seen by a wait\n", stderr);
    std::_Exit(1);
  }
} pending;

bool blocking() {
  static const char* text = std::getenv("CUDA_LAUNCH_BLOCKING");
  static const bool value = text && text[0] == '1';
  return value;
}

// A fault ends the context on a GPU. Here the work that was still to come is forgotten, and the next starts afresh.
void forget_all() {
  for (CUstream_st* s : streams) {
    for (const Op& op : s->queue)
      if (op.reaches) op.reaches->done = true;
    s->queue.clear();
  }
}

void run_until(const Point& point);

void run_front(CUstream_st& s) {
  if (const std::shared_ptr<Point> after = s.queue.front().after) run_until(*after);
  const Op op = std::move(s.queue.front());
  s.queue.pop_front();
  const OpenDevice open(s.device);
  try {
    if (op.work) op.work();
  } catch (...) {
    if (op.reaches) op.reaches->done = true;
    forget_all();
    throw;
  }
  if (!op.reaches) return;
  op.reaches->time = std::chrono::steady_clock::now();
  op.reaches->done = true;
}

// Ends: a point is in the queue before anyone waits for it.
void run_until(const Point& point) {
  while (!point.done) run_front(*point.stream);
}

// A few operations of some streams, under a seed.
void get_ahead() {
  if (random_bits() % 8 != 1) return;
  for (uint32_t left = random_bits() % 16; left > 0; --left) {
    CUstream_st* s = streams[random_bits() % streams.size()];
    if (!s->queue.empty()) run_front(*s);
  }
}

}  // namespace

std::recursive_mutex& runtime_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

CUstream_st* find(cudaStream_t stream) {
  if (stream) return std::count(streams.begin(), streams.end(), stream) ? stream : nullptr;
  int device = 0;
  if (current_device(&device) != cudaSuccess) return nullptr;
  while (default_streams.size() <= size_t(device)) {
    default_streams.push_back(std::make_unique<CUstream_st>());
    default_streams.back()->device = int(default_streams.size()) - 1;
    streams.push_back(default_streams.back().get());
  }
  return default_streams[size_t(device)].get();
}

cudaError_t enqueue(CUstream_st& s, Op op) {
  if (s.capture) {
    s.capture->work.push_back(std::move(op.work));
    return cudaSuccess;
  }
  size_t held = op.held_bytes;
  if (held > 0)
    for (const Op& o : s.queue) held += o.held_bytes;
  s.queue.push_back(std::move(op));
  if (blocking() || s.queue.size() > kMostOps || held > kMostHeldBytes) return attempt([&] { drain(s); });
  return attempt(get_ahead);
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
  std::lock_guard lock(runtime_mutex());
  CUstream_st* s = find(stream);
  return s ? enqueue(*s, Op{.work = std::move(work)}) : result(cudaErrorInvalidResourceHandle);
}

void drain(CUstream_st& s) {
  if (s.queue.empty()) return;
  const OpenDevice open(s.device);  // once, and not for each operation
  while (!s.queue.empty()) run_front(s);
}

void drain_all() {
  for (CUstream_st* s : streams) drain(*s);
}

cudaError_t attempt(const std::function<void()>& run) {
  try {
    run();
    return cudaSuccess;
  } catch (...) {
    if (std::uncaught_exceptions() == 0) throw;
    pending.fault = std::current_exception();
    return result(cudaErrorLaunchFailure);
  }
}

cudaError_t wait(const std::function<void()>& run) {
  const cudaError_t e = attempt(run);
  if (pending.fault && std::uncaught_exceptions() == 0) std::rethrow_exception(std::exchange(pending.fault, nullptr));
  return e;
}

cudaError_t discard(const std::function<void()>& run) {
  try {
    run();
    return cudaSuccess;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "emulation: met in a call that frees: %s\n", e.what());
    pending.fault = std::current_exception();
    return result(cudaErrorLaunchFailure);
  }
}

bool refused_by_capture() {
  bool any = false;
  for (CUstream_st* s : streams)
    if (s->capture && s->captured_by == std::this_thread::get_id()) any = s->capture->invalid = true;
  return any;
}

}  // namespace emulation

using emulation::Point, emulation::result;

// ---- streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) {
  std::lock_guard lock(emulation::runtime_mutex());
  int device = 0;
  if (const cudaError_t e = emulation::current_device(&device)) return result(e);
  if (flags != cudaStreamNonBlocking) return result(cudaErrorNotSupported);  // others wait for the default stream
  *s = new CUstream_st{.device = device};
  emulation::streams.push_back(*s);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  std::lock_guard lock(emulation::runtime_mutex());
  if (!s || !emulation::find(s)) return result(cudaErrorInvalidResourceHandle);
  const cudaError_t e = emulation::discard([&] { emulation::drain(*s); });
  std::erase(emulation::streams, s);
  delete s;
  return e;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  std::lock_guard lock(emulation::runtime_mutex());
  if (emulation::refused_by_capture()) return result(cudaErrorStreamCaptureUnsupported);
  CUstream_st* s = emulation::find(stream);
  if (!s) return result(cudaErrorInvalidResourceHandle);
  return emulation::wait([&] { emulation::drain(*s); });
}
cudaError_t cudaDeviceSynchronize() {
  std::lock_guard lock(emulation::runtime_mutex());
  if (emulation::refused_by_capture()) return result(cudaErrorStreamCaptureUnsupported);
  return emulation::wait(emulation::drain_all);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  std::lock_guard lock(emulation::runtime_mutex());
  CUstream_st* s = emulation::find(stream);
  if (!s || !event) return result(cudaErrorInvalidResourceHandle);
  if (s->capture) {  // of work inside the same capture, which is in order as it is
    if (event->captured == s->capture) return cudaSuccess;
    s->capture->invalid = true;
    return result(cudaErrorStreamCaptureIsolation);
  }
  if (event->captured) return result(cudaErrorCapturedEvent);  // would take the stream into the capture
  if (!event->point || event->point->done) return cudaSuccess;
  return emulation::enqueue(*s, {.work = nullptr, .after = event->point});
}

// ---- events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned flags) {
  int device = 0;
  if (const cudaError_t error = emulation::current_device(&device)) return result(error);
  *e = new CUevent_st{.device = device, .timed = !(flags & cudaEventDisableTiming)};
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream) {
  std::lock_guard lock(emulation::runtime_mutex());
  CUstream_st* s = emulation::find(stream);
  if (!s || !e || s->device != e->device) return result(cudaErrorInvalidResourceHandle);
  e->captured = s->capture;
  if (s->capture) return cudaSuccess;
  e->point = std::make_shared<Point>(Point{.stream = s});
  return emulation::enqueue(*s, {.work = nullptr, .reaches = e->point});
}
// Work goes on while the host asks: a loop of queries ends.
cudaError_t cudaEventQuery(cudaEvent_t e) {
  std::lock_guard lock(emulation::runtime_mutex());
  if (emulation::refused_by_capture()) return result(cudaErrorStreamCaptureUnsupported);
  if (e->captured) return result(cudaErrorCapturedEvent);
  if (!e->point || e->point->done) return cudaSuccess;
  const cudaError_t error = emulation::wait([&] { emulation::run_front(*e->point->stream); });
  return result(error ? error : cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  std::lock_guard lock(emulation::runtime_mutex());
  if (emulation::refused_by_capture()) return result(cudaErrorStreamCaptureUnsupported);
  if (e->captured) return result(cudaErrorCapturedEvent);
  return emulation::wait([&] {
    if (e->point) emulation::run_until(*e->point);
  });
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t stop) {
  std::lock_guard lock(emulation::runtime_mutex());
  if (!start->timed || !stop->timed || !start->point || !stop->point) return result(cudaErrorInvalidResourceHandle);
  if (!start->point->done || !stop->point->done) return result(cudaErrorNotReady);
  *ms = std::chrono::duration<float, std::milli>(stop->point->time - start->point->time).count();
  return cudaSuccess;
}

// ---- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode) {
  std::lock_guard lock(emulation::runtime_mutex());
  if (!s || s->capture || mode != cudaStreamCaptureModeThreadLocal) return result(cudaErrorStreamCaptureUnsupported);
  s->capture = new CUgraph_st;
  s->captured_by = std::this_thread::get_id();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* graph) {
  std::lock_guard lock(emulation::runtime_mutex());
  *graph = std::exchange(s->capture, nullptr);
  if (!*graph) return result(cudaErrorIllegalState);
  if (!(*graph)->invalid) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return result(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
  std::lock_guard lock(emulation::runtime_mutex());
  *status = s && s->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return *exec = new CUgraphExec_st{graph->work}, cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  std::lock_guard lock(emulation::runtime_mutex());
  CUstream_st* s = emulation::find(stream);
  if (!s || s->capture) return result(cudaErrorNotSupported);
  for (const auto& work : exec->work)
    if (const cudaError_t e = emulation::enqueue(*s, {.work = work})) return e;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }
