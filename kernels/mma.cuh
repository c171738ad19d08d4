#pragma once

// Tensor-core instructions, called by all 32 lanes of a warp together, and the special functions of the
// hardware, called by each lane for itself. The only inline PTX of the code base, and one of the two
// headers that know of the emulation.
//
// How mma_m16n8k16 spreads its matrices over the lanes (g = lane / 4, t = lane % 4; two bf16 to a
// register, the lower column, or row of b, in the lower half):
//
//   a (16 x 16)  a[0]: row g,     columns 2t, 2t+1        a[2]: row g,     columns 2t+8, 2t+9
//                a[1]: row g + 8, columns 2t, 2t+1        a[3]: row g + 8, columns 2t+8, 2t+9
//   b (16 x 8)   b0:   rows 2t, 2t+1, column g            b1:   rows 2t+8, 2t+9, column g
//   d (16 x 8)   d[0], d[1]: row g, columns 2t, 2t+1      d[2], d[3]: row g + 8, same columns
//
// So two neighbouring d tiles, rounded to bf16, are an a tile: no shuffle between two products.

#if GSAE_CUDA_EMULATED
#include "emulation/mma.h"
#else

#include <cuda_bf16.h>

#include <cstdint>

namespace gsae {

// d += a b, in f32
__device__ inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Four 8 x 8 matrices of 16-bit elements from shared memory. Lane 8i + j gives the address of row j
// of matrix i, 16-byte aligned; r[i] receives elements 2t and 2t+1 of row g of matrix i.
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same, but r[i] receives elements 2t and 2t+1 of column g.
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// Starts a copy of 16 bytes to shared memory, both ends 16-byte aligned. If not valid, writes zeros
// and reads nothing.
__device__ inline void cp_async_16(void* shared, const void* global, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}

// Closes this thread's group of copies.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kPending of this thread's groups are under way. Then __syncthreads(), for
// those of the other threads.
template <int kPending> __device__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// 2^x within 2^-22, relatively (PTX ISA, ex2); 0 where the result would be subnormal.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// tanh(x) within 2^-11, relatively (PTX ISA, tanh).
__device__ inline float tanh_approx(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace gsae

#endif
