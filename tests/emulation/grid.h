#pragma once

// Runs the grid of a kernel on one host thread: blocks one after another, the threads of a block as
// fibers that switch only where they wait for each other. What a thread waits for is a collective:
// a block barrier, or an operation of the lanes of a warp.
//
// Lanes have no hidden lockstep: a warp that relies on one without __syncwarp() gets wrong results
// here. With GSAE_EMULATION_SEED set (not 0), the order of the blocks, of the warps and of the
// lanes is drawn anew for each launch, for each block and after each block barrier: a missing
// barrier shows as a wrong result, and a result that depends on the order as a difference between
// two runs of the same op.

#include <vector_types.h>

#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <string>

namespace emulation {

using Where = std::source_location;

// What a kernel did that no GPU promises to survive. Names kernel, block, thread and source line;
// leaves through the launch.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Runs thread() once for each thread of the grid.
void run_grid(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);

uint32_t seed();         // GSAE_EMULATION_SEED, 0 if unset
uint32_t random_bits();  // 0 while the seed is 0

// The rest is called by the running thread of a kernel.

[[noreturn]] void fault(const std::string& what, Where where);
void* dynamic_shared();   // exactly as many bytes as the launch asked for, NaN at the block's start
int thread_in_block();    // linear, x fastest
uint64_t block_serial();  // another number for each block that ever ran
inline int lane() { return thread_in_block() % 32; }

// Waits for all threads of the block; all must come to the same line. Returns how many predicates
// were true.
int block_barrier(const char* name, bool predicate, Where where);

using Combine = void (*)(void* const* arrived, unsigned mask);
void wait_for_lanes(const char* name, unsigned mask, void* mine, Combine combine, Where where);

template <class T> struct Lanes {
  void* const* arrived;
  T& operator[](int lane) const { return *static_cast<T*>(arrived[lane]); }
};

// Waits until every lane of mask has come with the same name and mask, each bringing its own T.
// Then combine(lanes, mask) runs once, reads and writes them all, and every lane goes on. combine
// is a lambda without captures.
template <class T, class F> void warp_collective(const char* name, unsigned mask, T& mine, F, Where where) {
  wait_for_lanes(
      name, mask, &mine, [](void* const* arrived, unsigned mask) { F{}(Lanes<T>{arrived}, mask); }, where);
}

}  // namespace emulation
