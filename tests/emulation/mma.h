#pragma once

// kernels/mma.cuh for the host: the same functions, the same distribution of elements over the 32
// lanes (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix").
// Sums are rounded once, from double: the GPU rounds more often and in an order of its own.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace gsae::emulated {

using Where = emulation::Where;

inline float bf16_half(uint32_t pair, int half) { return std::bit_cast<float>(half ? pair & 0xffff0000u : pair << 16); }

inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                              Where where = Where::current()) {
  struct Lane {
    uint32_t a[4], b[2];
    float* d;
  } mine{{a[0], a[1], a[2], a[3]}, {b0, b1}, d};
  emulation::warp_collective(
      "mma_m16n8k16_bf16", 0xffffffffu, mine,
      [](auto lane, unsigned) {
        float a[16][16], b[16][8];
        for (int l = 0; l < 32; ++l) {
          const int group = l / 4, in_group = l % 4;
          for (int half = 0; half < 2; ++half) {
            const int k = 2 * in_group + half;
            for (int i = 0; i < 4; ++i) a[group + i % 2 * 8][k + i / 2 * 8] = bf16_half(lane[l].a[i], half);
            for (int i = 0; i < 2; ++i) b[k + i * 8][group] = bf16_half(lane[l].b[i], half);
          }
        }
        for (int l = 0; l < 32; ++l)
          for (int i = 0; i < 4; ++i) {
            const int row = l / 4 + i / 2 * 8, col = 2 * (l % 4) + i % 2;
            double sum = lane[l].d[i];
            for (int k = 0; k < 16; ++k) sum += double(a[row][k]) * b[k][col];
            lane[l].d[i] = static_cast<float>(sum);
          }
      },
      where);
}

// kTranspose: element (i, j) of a matrix goes where (j, i) would.
template <bool kTranspose> void load_matrices(const char* name, uint32_t (&r)[4], const void* row, Where where) {
  struct Lane {
    const uint16_t* row;
    uint32_t* r;
  } mine{static_cast<const uint16_t*>(row), r};
  if (reinterpret_cast<uintptr_t>(row) % 16)
    emulation::fault(std::string(name) + ": the row is not 16-byte aligned", where);
  emulation::warp_collective(
      name, 0xffffffffu, mine,
      [](auto lane, unsigned) {
        for (int l = 0; l < 32; ++l)
          for (int i = 0; i < 4; ++i) {
            const auto element = [&](int half) -> uint32_t {
              const int y = l / 4, x = 2 * (l % 4) + half;
              return kTranspose ? lane[8 * i + x].row[y] : lane[8 * i + y].row[x];
            };
            lane[l].r[i] = element(0) | element(1) << 16;
          }
      },
      where);
}

struct Copy {
  void* shared;
  const void* global;
  bool valid;
};
using Group = std::vector<Copy>;

// The groups that the running thread has begun and not waited for; the last one is open.
inline std::vector<Group>& groups() {
  static struct {
    uint64_t block;
    std::vector<Group> groups;
  } all[1024];
  auto& mine = all[emulation::thread_in_block()];
  if (mine.block != emulation::block_serial()) mine = {emulation::block_serial(), {Group{}}};
  return mine.groups;
}

inline void perform(const Copy& c) {
  if (c.valid) std::memcpy(c.shared, c.global, 16);
  else std::memset(c.shared, 0, 16);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, Where where = Where::current()) {
  load_matrices<false>("ldmatrix_x4", r, row, where);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, Where where = Where::current()) {
  load_matrices<true>("ldmatrix_x4_trans", r, row, where);
}

// A copy may land at any time until it is waited for. Here: at the wait, or, under a seed, half of
// the time at once, so that both reading too early and overwriting too early show.
inline void cp_async_16(void* shared, const void* global, bool valid = true, Where where = Where::current()) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 || reinterpret_cast<uintptr_t>(global) % 16)
    emulation::fault("cp_async_16: an address is not 16-byte aligned", where);
  const Copy c{shared, global, valid};
  if (emulation::random_bits() % 2) perform(c);
  else groups().back().push_back(c);
}

inline void cp_async_commit() { groups().emplace_back(); }

// Waits until at most kPending of the committed groups are under way.
template <int kPending> void cp_async_wait() {
  auto& begun = groups();
  while (begun.size() > kPending + 1) {
    for (const Copy& c : begun.front()) perform(c);
    begun.erase(begun.begin());
  }
}

// x to kBits significant bits, to the nearest: off by 2^-kBits of it at most, and for some x by almost that.
template <int kBits> float coarse(double x) {
  int exponent = 0;
  const double mantissa = std::frexp(x, &exponent);  // NaN and infinity stay what they are
  return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(mantissa, kBits)), exponent - kBits));
}

// The hardware's special functions, no better than the PTX ISA promises them to be.
inline float exp2_approx(float x) {
  const double y = std::exp2(double(x));
  return y < std::numeric_limits<float>::min() ? 0.0f : coarse<22>(y);
}
inline float tanh_approx(float x) { return coarse<11>(std::tanh(double(x))); }

}  // namespace gsae::emulated

namespace gsae {
using emulated::cp_async_16, emulated::cp_async_commit, emulated::cp_async_wait;
using emulated::exp2_approx, emulated::tanh_approx;
using emulated::ldmatrix_x4, emulated::ldmatrix_x4_trans, emulated::mma_m16n8k16_bf16;
}  // namespace gsae
