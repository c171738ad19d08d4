#pragma once

// Inside the emulated runtime: streams as queues of work that has been asked for and has not run.

#include <cuda_runtime.h>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace emulation {

// A place in a stream's queue, which an event stands for from its record on.
struct Point {
  CUstream_st* stream = nullptr;
  bool done = false;
  std::chrono::steady_clock::time_point time = {};
};

struct Op {
  std::function<void()> work;
  std::shared_ptr<Point> after = nullptr;    // of another stream: not before it
  std::shared_ptr<Point> reaches = nullptr;  // done with this op
  size_t held_bytes = 0;                     // of host memory, copied when the call was made
};

}  // namespace emulation

// The toolkit's opaque types.
struct CUgraph_st {
  std::vector<std::function<void()>> work;
  bool invalid = false;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};
struct CUstream_st {
  int device = 0;
  std::deque<emulation::Op> queue = {};
  CUgraph_st* capture = nullptr;
  std::thread::id captured_by = {};
};
struct CUevent_st {
  int device = 0;
  bool timed = true;
  std::shared_ptr<emulation::Point> point = nullptr;  // none: never recorded
  const CUgraph_st* captured = nullptr;               // the last record was part of this capture
};

namespace emulation {

// One call at a time, whichever thread makes it.
std::recursive_mutex& runtime_mutex();

// Sets what cudaGetLastError() returns.
cudaError_t result(cudaError_t e);

cudaError_t current_device(int* device);  // cudaErrorNoDevice, if there is none
int device_count();

// While one exists, the memory of its device is accessible; at other times AddressSanitizer stops whoever follows a
// pointer into it.
struct OpenDevice {
  explicit OpenDevice(int device);
  ~OpenDevice();
  OpenDevice(const OpenDevice&) = delete;
  int device;
};

// The stream, or for nullptr the default one of the current device. nullptr: no such stream.
CUstream_st* find(cudaStream_t stream);
cudaError_t enqueue(CUstream_st& stream, Op op);

// Runs what was asked for. A kernel's fault comes out of it as the exception that it is; unless one is on its way
// already, or the call is one that destructors make and discard() runs it: then it is kept for the next wait() to
// throw.
cudaError_t attempt(const std::function<void()>& run);
cudaError_t wait(const std::function<void()>& run);
cudaError_t discard(const std::function<void()>& run);
void drain(CUstream_st& stream);
void drain_all();

// What the real runtime refuses while this thread captures a stream, at the cost of the capture.
bool refused_by_capture();

}  // namespace emulation
