// The host side of the emulation: the CUDA runtime functions that the code base calls.
//
// Every operation is complete when its call returns, so nothing here finds a missing
// synchronisation or a missing dependency between streams. A captured graph is the list of
// operations, with their arguments as they were; launching it runs the list.
//
// Device memory is heap memory of the exact size, NaN until written, and out of bounds for the host
// (under AddressSanitizer it is poisoned while no operation runs).

#include "emulation/runtime.h"

#include <cuda_profiler_api.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "emulation/launches.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
// Wide redzones: a whole row out of bounds should not land in the next allocation.
extern "C" const char* __asan_default_options() { return "redzone=2048"; }
#else
#define ASAN_POISON_MEMORY_REGION(p, size) ((void)(p))
#define ASAN_UNPOISON_MEMORY_REGION(p, size) ((void)(p))
#endif

using Work = std::vector<std::function<void()>>;

// The toolkit's opaque types.
struct CUgraph_st {
  Work work;
  bool invalid = false;
};
struct CUgraphExec_st {
  Work work;
};
struct CUstream_st {
  CUgraph_st* capture = nullptr;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
};

namespace {

constexpr size_t kTotalBytes = size_t(4) << 30;  // a small GPU: running out of memory can be tested

std::recursive_mutex mutex;  // one operation at a time, whichever thread asks
std::map<const std::byte*, size_t> device_memory;
size_t used_bytes;
std::map<const void*, int> shared_limit;  // cudaFuncSetAttribute
std::vector<CUstream_st*> captures;       // streams being captured
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t result(cudaError_t e) {
  if (e != cudaSuccess) last_error = e;
  return e;
}

// While one exists, device memory is accessible.
struct OpenDevice {
  static inline int depth = 0;
  OpenDevice() {
    if (depth++ == 0)
      for (const auto& [p, bytes] : device_memory) ASAN_UNPOISON_MEMORY_REGION(p, bytes);
  }
  ~OpenDevice() {
    if (--depth == 0)
      for (const auto& [p, bytes] : device_memory) ASAN_POISON_MEMORY_REGION(p, bytes);
  }
};

// What the real runtime refuses during a thread-local capture, at the cost of the capture.
bool refused_by_capture() {
  for (CUstream_st* s : captures) s->capture->invalid = true;
  return !captures.empty();
}

// dst or src of a copy or fill of n bytes. Default: wherever it is, if it fits.
bool valid(const void* p, size_t n, bool on_device, bool anywhere = false) {
  const size_t available = emulation::device_bytes(p);
  return available ? n <= available && (on_device || anywhere) : !on_device || anywhere;
}

cudaError_t copy(void* dst, const void* src, size_t n, cudaMemcpyKind kind, cudaStream_t stream) {
  const bool any = kind == cudaMemcpyDefault;
  if (!valid(dst, n, kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice, any) ||
      !valid(src, n, kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice, any))
    return result(cudaErrorInvalidValue);
  return emulation::enqueue(stream, [=] { std::memcpy(dst, src, n); });
}

}  // namespace

namespace emulation {

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
  std::lock_guard lock(mutex);
  if (stream && stream->capture) {
    stream->capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  OpenDevice open;
  work();
  return cudaSuccess;
}

cudaError_t launch(const cudaLaunchConfig_t& c, const void* kernel, std::function<void()> thread) {
  const dim3 g = c.gridDim, b = c.blockDim;
  if (g.x == 0 || g.y == 0 || g.z == 0 || b.x == 0 || b.y == 0 || b.z == 0 || g.x > 0x7fffffffu || g.y > 65535 ||
      g.z > 65535 || b.x > 1024 || b.y > 1024 || b.z > 64 || b.x * b.y * b.z > 1024)
    return result(cudaErrorInvalidConfiguration);
  const auto limit = shared_limit.find(kernel);
  if (c.dynamicSmemBytes > size_t(limit == shared_limit.end() ? 48 << 10 : limit->second))
    return result(cudaErrorInvalidValue);
  if (c.numAttrs) return result(cudaErrorNotSupported);
  const size_t shared_bytes = c.dynamicSmemBytes;
  note_launch(kernel, b.x * b.y * b.z, shared_bytes);
  return enqueue(c.stream, [=] { run_grid(kernel, g, b, shared_bytes, thread); });
}

size_t device_bytes(const void* p) {
  auto it = device_memory.upper_bound(static_cast<const std::byte*>(p));
  if (it == device_memory.begin()) return 0;
  --it;
  const std::byte* end = it->first + it->second;
  return p < end ? static_cast<size_t>(end - static_cast<const std::byte*>(p)) : 0;
}

}  // namespace emulation

// ---- errors

cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
const char* cudaGetErrorName(cudaError_t e) {
  switch (e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorNotSupported: return "cudaErrorNotSupported";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    default: return "cudaError";
  }
}
const char* cudaGetErrorString(cudaError_t e) { return e == cudaSuccess ? "no error" : "reported by the emulation"; }

// ---- device

cudaError_t cudaGetDeviceCount(int* n) { return *n = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  std::strcpy(p->name, "emulated");
  p->major = 9;
  p->totalGlobalMem = kTotalBytes;
  p->multiProcessorCount = 132;
  p->l2CacheSize = 50 << 20;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->sharedMemPerBlock = 48 << 10;
  p->sharedMemPerBlockOptin = 227 << 10;
  p->sharedMemPerMultiprocessor = 228 << 10;
  p->regsPerBlock = 65536;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  cudaDeviceProp p;
  cudaGetDeviceProperties(&p, 0);
  switch (attribute) {
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(p.sharedMemPerBlockOptin); break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    default: return result(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value > (227 << 10))
    return result(cudaErrorInvalidValue);
  shared_limit[kernel] = value;
  return cudaSuccess;
}

// ---- memory

cudaError_t cudaMalloc(void** out, size_t bytes) {
  std::lock_guard lock(mutex);
  *out = nullptr;
  if (refused_by_capture()) return result(cudaErrorStreamCaptureUnsupported);
  if (bytes == 0) return cudaSuccess;
  if (used_bytes + bytes > kTotalBytes || posix_memalign(out, 256, bytes) != 0)
    return result(cudaErrorMemoryAllocation);
  std::memset(*out, 0xff, bytes);  // NaN in f32 and bf16, -1 in i32
  used_bytes += bytes;
  device_memory[static_cast<std::byte*>(*out)] = bytes;
  ASAN_POISON_MEMORY_REGION(*out, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  std::lock_guard lock(mutex);
  if (!p) return cudaSuccess;
  const auto it = device_memory.find(static_cast<std::byte*>(p));
  if (it == device_memory.end()) return result(cudaErrorInvalidValue);
  ASAN_UNPOISON_MEMORY_REGION(p, it->second);
  used_bytes -= it->second;
  device_memory.erase(it);
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** out, size_t bytes) {
  return result(posix_memalign(out, 256, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void* p) { return std::free(p), cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  return *free_bytes = kTotalBytes - used_bytes, *total = kTotalBytes, cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t stream) {
  return copy(d, s, n, k, stream);
}
cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind kind) {
  if (refused_by_capture()) return result(cudaErrorStreamCaptureUnsupported);
  return copy(d, s, n, kind, nullptr);
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  if (!valid(p, bytes, true)) return result(cudaErrorInvalidValue);
  return emulation::enqueue(stream, [=] { std::memset(p, value, bytes); });
}
cudaError_t cudaMemset(void* p, int value, size_t n) { return cudaMemsetAsync(p, value, n, nullptr); }

// ---- streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { return *s = new CUstream_st, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t s) { return delete s, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return result(refused_by_capture() ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}
cudaError_t cudaDeviceSynchronize() { return cudaStreamSynchronize(nullptr); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) { return *e = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream) {
  return emulation::enqueue(stream, [=] { e->time = std::chrono::steady_clock::now(); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaStreamSynchronize(nullptr); }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t stop) {
  *ms = std::chrono::duration<float, std::milli>(stop->time - start->time).count();
  return cudaSuccess;
}

// ---- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  if (!s || s->capture) return result(cudaErrorStreamCaptureUnsupported);
  s->capture = new CUgraph_st;
  captures.push_back(s);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* graph) {
  *graph = std::exchange(s->capture, nullptr);
  std::erase(captures, s);
  if (*graph && !(*graph)->invalid) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return result(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
  *status = s && s->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return *exec = new CUgraphExec_st{graph->work}, cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  for (const auto& work : exec->work) emulation::enqueue(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }

// ---- versions and the profiler

cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }
