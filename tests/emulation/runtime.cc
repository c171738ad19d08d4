// Devices, memory, copies, launches and errors of the emulated runtime. Streams and what waits for what: streams.cc.
//
// Device memory is heap memory of the exact size, NaN until written, and out of bounds for the host and for kernels of
// another device (under AddressSanitizer it is poisoned while no operation of its device runs).
//
// GSAE_EMULATED_GPUS=n: as many devices, 1 if unset. GSAE_EMULATED_MEMORY=bytes: of each, 4 GiB if unset.

#include "emulation/runtime.h"

#include <cuda_profiler_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "emulation/launches.h"
#include "emulation/streams.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
// Wide redzones: a whole row out of bounds should not land in the next allocation.
extern "C" const char* __asan_default_options() { return "redzone=2048"; }
#else
#define ASAN_POISON_MEMORY_REGION(p, size) ((void)(p))
#define ASAN_UNPOISON_MEMORY_REGION(p, size) ((void)(p))
#endif

using emulation::result, emulation::OpenDevice;

namespace {

constexpr int kMostDevices = 8;

struct Allocation {
  size_t bytes;
  int device = 0;
};
std::map<const std::byte*, Allocation> device_memory, pinned_memory;
size_t used_bytes[kMostDevices], peak[kMostDevices];
int open_depth[kMostDevices];
std::map<const void*, int> shared_limit;  // cudaFuncSetAttribute
thread_local int device_of_thread;
thread_local cudaError_t last_error = cudaSuccess;

size_t from_environment(const char* name, size_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}
size_t total_bytes() { return from_environment("GSAE_EMULATED_MEMORY", size_t(4) << 30); }

// What an allocation takes of a device: pages of 2 MiB, which small ones share.
size_t charged(size_t bytes) {
  const size_t step = bytes >= size_t(1) << 20 ? size_t(2) << 20 : 512;
  return (bytes + step - 1) / step * step;
}

// The allocation that p lies in, and how much of it is left from there.
struct Place {
  const Allocation* allocation = nullptr;
  size_t bytes = 0;
};
Place place(const std::map<const std::byte*, Allocation>& memory, const void* p) {
  auto it = memory.upper_bound(static_cast<const std::byte*>(p));
  if (it == memory.begin()) return {};
  --it;
  const std::byte* end = it->first + it->second.bytes;
  if (p >= end) return {};
  return {&it->second, static_cast<size_t>(end - static_cast<const std::byte*>(p))};
}

// One end of a copy or fill of n bytes.
struct End {
  Place device, pinned;

  End(const void* p, size_t n, bool may_be_host, bool may_be_device)
      : device(place(device_memory, p)), pinned(place(pinned_memory, p)) {
    valid = device.allocation ? may_be_device && n <= device.bytes
                              : may_be_host && (!pinned.allocation || n <= pinned.bytes);
  }
  bool on_device() const { return device.allocation; }
  bool pageable() const { return !device.allocation && !pinned.allocation; }

  bool valid;
};

// As the real one: from pageable memory the source is taken at the call; to pageable memory, or between host and
// host, the call waits; anything else reads and writes when its turn comes.
cudaError_t copy(void* dst, const void* src, size_t n, cudaMemcpyKind kind, cudaStream_t stream, bool waits) {
  std::lock_guard lock(emulation::runtime_mutex());
  const bool any = kind == cudaMemcpyDefault;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const End to(dst, n, any || !to_device, any || to_device), from(src, n, any || !from_device, any || from_device);
  if (!to.valid || !from.valid) return result(cudaErrorInvalidValue);
  CUstream_st* s = emulation::find(stream);
  if (!s) return result(cudaErrorInvalidResourceHandle);
  waits |= to.pageable() || (!to.on_device() && !from.on_device());
  if (s->capture && (waits || from.pageable())) {  // a replay would read and write memory that may be gone
    s->capture->invalid = true;
    return result(cudaErrorStreamCaptureUnsupported);
  }
  const int to_gpu = to.on_device() ? to.device.allocation->device : s->device;
  const int from_gpu = from.on_device() ? from.device.allocation->device : s->device;
  emulation::Op op;
  if (from.pageable() && !waits) {
    const auto* begin = static_cast<const std::byte*>(src);
    op.work = [=, held = std::make_shared<std::vector<std::byte>>(begin, begin + n)] {
      const OpenDevice open(to_gpu);
      std::memcpy(dst, held->data(), n);
    };
    op.held_bytes = n;
  } else {
    op.work = [=] {
      const OpenDevice open_to(to_gpu), open_from(from_gpu);
      std::memcpy(dst, src, n);
    };
  }
  const cudaError_t e = emulation::enqueue(*s, std::move(op));
  return e || !waits ? e : emulation::wait([&] { emulation::drain(*s); });
}

void charge(int device, size_t bytes) {
  used_bytes[device] += bytes;
  peak[device] = std::max(peak[device], used_bytes[device]);
}

}  // namespace

namespace emulation {

OpenDevice::OpenDevice(int device) : device(device) {
  if (open_depth[device]++ > 0) return;
  for (const auto& [p, a] : device_memory)
    if (a.device == device) ASAN_UNPOISON_MEMORY_REGION(p, a.bytes);
}
OpenDevice::~OpenDevice() {
  if (--open_depth[device] > 0) return;
  for (const auto& [p, a] : device_memory)
    if (a.device == device) ASAN_POISON_MEMORY_REGION(p, a.bytes);
}

int device_count() { return int(std::min<size_t>(from_environment("GSAE_EMULATED_GPUS", 1), kMostDevices)); }
cudaError_t current_device(int* device) {
  *device = device_of_thread;
  return device_count() > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t result(cudaError_t e) {
  if (e != cudaSuccess) last_error = e;
  return e;
}

cudaError_t launch(const cudaLaunchConfig_t& c, const void* kernel, std::function<void()> thread) {
  std::lock_guard lock(runtime_mutex());
  const dim3 g = c.gridDim, b = c.blockDim;
  if (g.x == 0 || g.y == 0 || g.z == 0 || b.x == 0 || b.y == 0 || b.z == 0 || g.x > 0x7fffffffu || g.y > 65535 ||
      g.z > 65535 || b.x > 1024 || b.y > 1024 || b.z > 64 || b.x * b.y * b.z > 1024)
    return result(cudaErrorInvalidConfiguration);
  const auto limit = shared_limit.find(kernel);
  if (c.dynamicSmemBytes > size_t(limit == shared_limit.end() ? 48 << 10 : limit->second))
    return result(cudaErrorInvalidValue);
  if (c.numAttrs) return result(cudaErrorNotSupported);
  CUstream_st* s = find(c.stream);
  if (!s || s->device != device_of_thread) return result(cudaErrorInvalidResourceHandle);
  const size_t shared_bytes = c.dynamicSmemBytes;
  note_launch(kernel, b.x * b.y * b.z, shared_bytes);
  return enqueue(*s, Op{.work = [=, thread = std::move(thread)] { run_grid(kernel, g, b, shared_bytes, thread); }});
}

size_t device_bytes(const void* p) {
  std::lock_guard lock(runtime_mutex());
  return place(device_memory, p).bytes;
}

size_t peak_bytes(int device) { return peak[device]; }

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
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorNotSupported: return "cudaErrorNotSupported";
    case cudaErrorIllegalState: return "cudaErrorIllegalState";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
    case cudaErrorCapturedEvent: return "cudaErrorCapturedEvent";
    default: return "cudaError";
  }
}
const char* cudaGetErrorString(cudaError_t e) { return e == cudaSuccess ? "no error" : "reported by the emulation"; }

// ---- devices

cudaError_t cudaGetDeviceCount(int* n) {
  *n = emulation::device_count();
  return result(*n > 0 ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* device) { return result(emulation::current_device(device)); }
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulation::device_count()) return result(cudaErrorInvalidDevice);
  return device_of_thread = device, cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device < 0 || device >= emulation::device_count()) return result(cudaErrorInvalidDevice);
  *p = {};
  std::strcpy(p->name, "emulated");
  p->major = 9;
  p->totalGlobalMem = total_bytes();
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
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t e = cudaGetDeviceProperties(&p, device)) return e;
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
  std::lock_guard lock(emulation::runtime_mutex());
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value > (227 << 10))
    return result(cudaErrorInvalidValue);
  shared_limit[kernel] = value;
  return cudaSuccess;
}

// ---- memory

// Does not wait: nothing promises that the real one does.
cudaError_t cudaMalloc(void** out, size_t bytes) {
  std::lock_guard lock(emulation::runtime_mutex());
  *out = nullptr;
  int device = 0;
  if (const cudaError_t e = emulation::current_device(&device)) return result(e);
  if (emulation::refused_by_capture()) return result(cudaErrorStreamCaptureUnsupported);
  if (bytes == 0) return cudaSuccess;
  if (used_bytes[device] + charged(bytes) > total_bytes() || posix_memalign(out, 256, bytes) != 0)
    return result(cudaErrorMemoryAllocation);
  std::memset(*out, 0xff, bytes);  // NaN in f32 and bf16, -1 in i32
  charge(device, charged(bytes));
  device_memory[static_cast<std::byte*>(*out)] = {bytes, device};
  ASAN_POISON_MEMORY_REGION(*out, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  std::lock_guard lock(emulation::runtime_mutex());
  if (!p) return cudaSuccess;
  if (emulation::refused_by_capture()) return result(cudaErrorStreamCaptureUnsupported);
  const cudaError_t e = emulation::discard(emulation::drain_all);
  const auto it = device_memory.find(static_cast<std::byte*>(p));
  if (it == device_memory.end()) return result(cudaErrorInvalidValue);
  ASAN_UNPOISON_MEMORY_REGION(p, it->second.bytes);
  used_bytes[it->second.device] -= charged(it->second.bytes);
  device_memory.erase(it);
  std::free(p);
  return e;
}
cudaError_t cudaMallocHost(void** out, size_t bytes) {
  std::lock_guard lock(emulation::runtime_mutex());
  *out = nullptr;
  int device = 0;
  if (const cudaError_t e = emulation::current_device(&device)) return result(e);
  if (emulation::refused_by_capture()) return result(cudaErrorStreamCaptureUnsupported);
  if (posix_memalign(out, 256, bytes) != 0) return result(cudaErrorMemoryAllocation);
  std::memset(*out, 0xff, bytes);
  pinned_memory[static_cast<std::byte*>(*out)] = {bytes};
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  std::lock_guard lock(emulation::runtime_mutex());
  if (!p) return cudaSuccess;
  const cudaError_t e = emulation::discard(emulation::drain_all);
  if (pinned_memory.erase(static_cast<std::byte*>(p)) == 0) return result(cudaErrorInvalidValue);
  std::free(p);
  return e;
}
cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned) {
  std::lock_guard lock(emulation::runtime_mutex());
  if (place(pinned_memory, p).allocation) return result(cudaErrorHostMemoryAlreadyRegistered);
  pinned_memory[static_cast<std::byte*>(p)] = {bytes};
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* p) {
  std::lock_guard lock(emulation::runtime_mutex());
  const cudaError_t e = emulation::discard(emulation::drain_all);
  return pinned_memory.erase(static_cast<std::byte*>(p)) ? e : result(cudaErrorHostMemoryNotRegistered);
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  std::lock_guard lock(emulation::runtime_mutex());
  int device = 0;
  if (const cudaError_t e = emulation::current_device(&device)) return result(e);
  *total = total_bytes();
  return *free_bytes = *total - std::min(*total, used_bytes[device]), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t stream) {
  return copy(d, s, n, k, stream, false);
}
cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind kind) {
  if (emulation::refused_by_capture()) return result(cudaErrorStreamCaptureUnsupported);
  return copy(d, s, n, kind, nullptr, true);
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t stream) {
  std::lock_guard lock(emulation::runtime_mutex());
  if (!End(p, n, false, true).valid) return result(cudaErrorInvalidValue);
  return emulation::enqueue(stream, [=] { std::memset(p, value, n); });
}
cudaError_t cudaMemset(void* p, int value, size_t n) { return cudaMemsetAsync(p, value, n, nullptr); }

// ---- versions and the profiler

cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }
