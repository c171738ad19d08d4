#pragma once

// Several consecutive elements of a row as f32, whatever they are stored as. For .cu files.

#include <cuda_bf16.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace gsae {

// Whether all of them may be accessed `bytes` at a time. An Arena aligns tensors; a view of some rows may start
// anywhere.
inline bool aligned(uintptr_t bytes, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers)
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) return false;
  return true;
}

// What one load or store moves.
template <int kBytes> struct Packet;
template <> struct Packet<2> { uint16_t word; };
template <> struct Packet<4> { uint32_t word; };
template <> struct Packet<8> { uint2 words; };
template <> struct Packet<16> { uint4 words; };
template <> struct Packet<32> { uint4 words[2]; };

// v = p[0..N) widened, as one access (two for 8 floats): p is aligned to it (16 bytes at most).
template <int N, class T> __device__ void load_row(float (&v)[N], const T* p) {
  const Packet<N * sizeof(T)> packet = *reinterpret_cast<const Packet<N * sizeof(T)>*>(p);
  T values[N];
  memcpy(static_cast<void*>(values), &packet, sizeof values);
  for (int i = 0; i < N; ++i) v[i] = static_cast<float>(values[i]);
}

// p[0..N) = v, rounded once to the nearest even. As one access, except that nvcc takes stores apart again in a loop
// that works out their address from a 64-bit index every time: step a pointer there.
template <int N, class T> __device__ void store_row(T* p, const float (&v)[N]) {
  T values[N];
  for (int i = 0; i < N; ++i) values[i] = static_cast<T>(v[i]);
  Packet<N * sizeof(T)> packet;
  memcpy(static_cast<void*>(&packet), values, sizeof values);
  *reinterpret_cast<Packet<N * sizeof(T)>*>(p) = packet;
}

}  // namespace gsae
