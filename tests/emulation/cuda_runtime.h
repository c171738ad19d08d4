#pragma once

// Found in place of the toolkit's <cuda_runtime.h> when the .cu files are compiled for the host.
// The host API (types, prototypes, error codes, vector types, cuda_bf16.h, cublasLt.h, nvtx3) is
// the toolkit's own, so that launchers are checked against the real signatures; runtime.cc and
// cublaslt.cc implement what the code base uses of it. This header adds what nvcc would: the
// language of device code, and the launch, in place of the toolkit's, which forgets the types of
// the arguments.

#define cudaLaunchKernelEx cudaLaunchKernelExTypeErased
#include_next <cuda_runtime.h>
#undef cudaLaunchKernelEx
#undef __shared__
#define __shared__ static  // blocks run one at a time; static arrays get redzones of their own
#define __launch_bounds__(...)

#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <tuple>
#include <type_traits>

#include "emulation/grid.h"

namespace emulation {
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread);
}

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), Args&&... args) {
  std::tuple<std::remove_const_t<Params>...> values(std::forward<Args>(args)...);
  return emulation::launch(*config, reinterpret_cast<const void*>(kernel), [=] { std::apply(kernel, values); });
}
template <class... P> cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

// ---- built-in variables

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---- barriers. Every collective carries its source line for the report of a deadlock.

inline void __syncthreads(emulation::Where where = emulation::Where::current()) {
  emulation::block_barrier("__syncthreads", false, where);
}
inline int __syncthreads_count(int p, emulation::Where where = emulation::Where::current()) {
  return emulation::block_barrier("__syncthreads_count", p != 0, where);
}
inline int __syncthreads_or(int p, emulation::Where where = emulation::Where::current()) {
  return emulation::block_barrier("__syncthreads_or", p != 0, where) > 0;
}
inline int __syncthreads_and(int p, emulation::Where where = emulation::Where::current()) {
  return emulation::block_barrier("__syncthreads_and", p == 0, where) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, emulation::Where where = emulation::Where::current()) {
  char none = 0;
  emulation::warp_collective(
      "__syncwarp", mask, none, [](auto, unsigned) {}, where);
}
inline void __threadfence() {}  // one host thread: memory is in order, a missing fence not found
inline void __threadfence_block() {}

// ---- shuffles and votes

namespace emulation {

template <class T> T shuffle(const char* name, unsigned mask, T value, int source, Where where) {
  struct Lane {
    T in, out;
    int source;
  } mine{value, value, source};
  if (!(mask >> source & 1))
    fault(std::string(name) + " reads lane " + std::to_string(source) + ", not in its mask", where);
  warp_collective(
      name, mask, mine,
      [](auto lane, unsigned mask) {
        for (int l = 0; l < 32; ++l)
          if (mask >> l & 1) lane[l].out = lane[lane[l].source].in;
      },
      where);
  return mine.out;
}

// bit l: the predicate of lane l
inline unsigned vote(const char* name, unsigned mask, bool predicate, Where where) {
  struct Lane {
    bool in;
    unsigned out;
  } mine{predicate, 0};
  warp_collective(
      name, mask, mine,
      [](auto lane, unsigned mask) {
        unsigned bits = 0;
        for (int l = 0; l < 32; ++l)
          if (mask >> l & 1) bits |= unsigned(lane[l].in) << l;
        for (int l = 0; l < 32; ++l)
          if (mask >> l & 1) lane[l].out = bits;
      },
      where);
  return mine.out;
}

}  // namespace emulation

template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32, emulation::Where where = emulation::Where::current()) {
  const int base = emulation::lane() / width * width;
  return emulation::shuffle("__shfl_sync", mask, v, base + (source & (width - 1)), where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32,
                 emulation::Where where = emulation::Where::current()) {
  const int lane = emulation::lane(), source = lane - static_cast<int>(delta);
  return emulation::shuffle("__shfl_up_sync", mask, v, source < lane / width * width ? lane : source, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32,
                   emulation::Where where = emulation::Where::current()) {
  const int lane = emulation::lane(), source = lane + static_cast<int>(delta);
  return emulation::shuffle("__shfl_down_sync", mask, v, source >= (lane / width + 1) * width ? lane : source, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lane_mask, int width = 32,
                  emulation::Where where = emulation::Where::current()) {
  const int lane = emulation::lane(), source = lane ^ lane_mask;
  return emulation::shuffle("__shfl_xor_sync", mask, v, source >= (lane / width + 1) * width ? lane : source, where);
}
inline unsigned __ballot_sync(unsigned mask, int p, emulation::Where where = emulation::Where::current()) {
  return emulation::vote("__ballot_sync", mask, p != 0, where);
}
inline int __any_sync(unsigned mask, int p, emulation::Where where = emulation::Where::current()) {
  return emulation::vote("__any_sync", mask, p != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int p, emulation::Where where = emulation::Where::current()) {
  return emulation::vote("__all_sync", mask, p != 0, where) == mask;
}
template <class T> unsigned __match_any_sync(unsigned mask, T v, emulation::Where where = emulation::Where::current()) {
  struct Lane {
    T in;
    unsigned out;
  } mine{v, 0};
  emulation::warp_collective(
      "__match_any_sync", mask, mine,
      [](auto lane, unsigned mask) {
        for (int l = 0; l < 32; ++l)
          for (int other = 0; other < 32; ++other)
            if (mask >> l & mask >> other & 1) lane[l].out |= unsigned(lane[l].in == lane[other].in) << other;
      },
      where);
  return mine.out;
}

// ---- atomics: fibers do not preempt each other, so plain code is atomic. Which thread comes first
// changes with the seed: floating-point sums change with it.

namespace emulation {
template <class T, class F> T exchange_with(T* p, F f) {
  const T old = *p;
  *p = static_cast<T>(f(old));
  return old;
}
}  // namespace emulation

template <class T> T atomicAdd(T* p, std::type_identity_t<T> v) {
  return emulation::exchange_with(p, [=](T old) { return old + v; });
}
template <class T> T atomicMax(T* p, std::type_identity_t<T> v) {
  return emulation::exchange_with(p, [=](T old) { return old > v ? old : v; });
}
template <class T> T atomicMin(T* p, std::type_identity_t<T> v) {
  return emulation::exchange_with(p, [=](T old) { return old < v ? old : v; });
}
template <class T> T atomicOr(T* p, std::type_identity_t<T> v) {
  return emulation::exchange_with(p, [=](T old) { return old | v; });
}
template <class T> T atomicAnd(T* p, std::type_identity_t<T> v) {
  return emulation::exchange_with(p, [=](T old) { return old & v; });
}
template <class T> T atomicExch(T* p, std::type_identity_t<T> v) {
  return emulation::exchange_with(p, [=](T) { return v; });
}
template <class T> T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  return emulation::exchange_with(p, [=](T old) { return old == expected ? v : old; });
}

// ---- intrinsics. The approximate ones are exact here: tolerances must leave room for the GPU's.

using std::max;
using std::min;
template <class T> T __ldg(const T* p) { return *p; }
// Never contracted with another operation, on the GPU as here: a call that is not inlined.
[[gnu::noinline]] inline float __fadd_rn(float x, float y) { return x + y; }
[[gnu::noinline]] inline float __fmul_rn(float x, float y) { return x * y; }
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(std::sin(M_PI * double(x)));
  *cosine = static_cast<float>(std::cos(M_PI * double(x)));
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(static_cast<unsigned>(x)) + 1 : 0; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
