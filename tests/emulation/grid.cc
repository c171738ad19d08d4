#include "emulation/grid.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "emulation/cuda_runtime.h"
#include "emulation/fiber.h"

extern "C" void __sanitizer_symbolize_pc(void*, const char*, char*, size_t) __attribute__((weak));

namespace emulation {
namespace {

struct Thread {
  enum State { kReady, kWaiting, kExited };

  Fiber fiber;
  uint3 index{};
  State state = kExited;
  // While waiting: for whom, where, and what this thread brings.
  const char* name = nullptr;
  unsigned mask = 0;  // 0: the whole block
  void* mine = nullptr;
  Where where;
};

// Who of a warp waits for its lanes. All who do are of one group as a rule: the same operation, for the same lanes. It
// is counted; where there are several, each arrival looks at all lanes.
struct Warp {
  unsigned exited = 0;  // bit l: lane l, or the block ends before it
  const char* name = nullptr;
  unsigned mask = 0, here = 0;  // of the group that is counted: who has come
  int others = 0;               // lanes that wait in other groups
};

// The block that runs. There is one at a time.
struct Block {
  const void* kernel = nullptr;
  const std::function<void()>* thread = nullptr;
  std::vector<std::unique_ptr<Thread>> pool;  // kept, with their stacks, from launch to launch
  uint64_t serial = 0;
  int size = 0, live = 0, current = -1;
  int arrived = 0, predicates = 0, result = 0;  // of the block barrier
  Where barrier;
  bool reorder = false;
  std::vector<int> warps, lanes;  // the order in which they run
  std::vector<Warp> waiting;      // of each warp
  std::unique_ptr<std::byte, void (*)(void*)> shared{nullptr, std::free};
  std::exception_ptr fault;
  std::mt19937 random{seed()};  // not begun again by a launch: to repeat one is to change its order
} block;

Thread& self() { return *block.pool[block.current]; }

std::string text(uint3 i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}
std::string text(Where w) { return std::string(w.file_name()) + ":" + std::to_string(w.line()); }

// "gsae::cuda::rms_norm_kernel<float>(...), block (3,0,0)"
std::string place() {
  char name[512] = "kernel";
  if (__sanitizer_symbolize_pc) {  // it takes return addresses: one past the call
    const void* in_kernel = static_cast<const char*>(block.kernel) + 1;
    __sanitizer_symbolize_pc(const_cast<void*>(in_kernel), "%f", name, sizeof name);
  }
  return std::string(name) + ", block " + text(blockIdx);
}

// One line for each group of threads that share a fate.
[[noreturn]] void deadlock() {
  std::map<std::string, std::pair<int, std::string>> groups;
  for (int i = 0; i < block.size; ++i) {
    const Thread& t = *block.pool[i];
    std::string fate = "exited";
    if (t.state != Thread::kExited) fate = std::string("waits at ") + t.name + ", " + text(t.where);
    if (t.state != Thread::kExited && t.mask) fate += ", for lanes " + std::to_string(t.mask);
    if (groups[fate].first++ == 0) groups[fate].second = text(t.index);
  }
  std::string what = "deadlock in " + place();
  for (const auto& [fate, who] : groups)
    what += "\n  thread " + who.second + " and " + std::to_string(who.first - 1) + " more: " + fate;
  throw Fault(what);
}

void thread_main() {
  for (;;) {
    try {
      (*block.thread)();
    } catch (...) {
      block.fault = std::current_exception();
    }
    self().state = Thread::kExited;
    block.waiting[static_cast<size_t>(block.current / 32)].exited |= 1u << block.current % 32;
    --block.live;
    self().fiber.yield();
  }
}

void resume(int i) {
  block.current = i;
  threadIdx = block.pool[i]->index;
  block.pool[i]->fiber.resume();
  block.current = -1;
  if (block.fault) std::rethrow_exception(std::exchange(block.fault, nullptr));
}

void wait() {
  self().state = Thread::kWaiting;
  self().fiber.yield();
}

template <class V> void shuffle(V& v) {
  if (seed()) std::shuffle(v.begin(), v.end(), block.random);
}

bool run_ready_lanes(int warp) {
  bool any = false;
  for (int lane : block.lanes) {
    const int i = warp * 32 + lane;
    if (i < block.size && block.pool[i]->state == Thread::kReady) resume(i), any = true;
  }
  return any;
}

// A warp runs as far ahead of the others as it can: until all its lanes wait for the whole block.
// Under a seed, it is now and then cut short.
void run_block() {
  block.reorder = true;
  while (block.live > 0) {
    if (std::exchange(block.reorder, false)) shuffle(block.warps), shuffle(block.lanes);
    bool progress = false;
    for (int warp : block.warps) {
      while (run_ready_lanes(warp)) {
        progress = true;
        if (random_bits() % 8 == 1) break;
      }
      if (block.reorder) break;
    }
    if (!progress) deadlock();
  }
}

void prepare(dim3 dim, size_t shared_bytes) {
  block.size = block.live = static_cast<int>(dim.x * dim.y * dim.z);
  block.arrived = block.predicates = 0;
  ++block.serial;
  while (block.pool.size() < static_cast<size_t>(block.size)) {
    block.pool.push_back(std::make_unique<Thread>());
    block.pool.back()->fiber.start(thread_main);
  }
  for (int i = 0; i < block.size; ++i) {
    const unsigned u = static_cast<unsigned>(i);
    block.pool[i]->index = {u % dim.x, u / dim.x % dim.y, u / dim.x / dim.y};
    block.pool[i]->state = Thread::kReady;
  }
  block.waiting.assign(static_cast<size_t>((block.size + 31) / 32), Warp{});
  if (block.size % 32) block.waiting.back().exited = ~0u << block.size % 32;
  void* p = nullptr;  // of the exact size: AddressSanitizer sees to its end
  if (shared_bytes && posix_memalign(&p, 1024, shared_bytes) != 0) throw std::bad_alloc();
  if (p) std::memset(p, 0xff, shared_bytes);
  block.shared.reset(static_cast<std::byte*>(p));
}

}  // namespace

uint32_t seed() {
  static const char* text = std::getenv("GSAE_EMULATION_SEED");
  static const uint32_t value = text ? static_cast<uint32_t>(std::strtoul(text, nullptr, 10)) : 0;
  return value;
}

uint32_t random_bits() { return seed() ? static_cast<uint32_t>(block.random()) >> 8 : 0; }

void run_grid(const void* kernel, dim3 grid, dim3 dim, size_t shared_bytes, const std::function<void()>& thread) {
  block.kernel = kernel;
  block.thread = &thread;
  gridDim = grid;
  blockDim = dim;
  block.warps.resize((dim.x * dim.y * dim.z + 31) / 32);
  block.lanes.resize(32);
  std::iota(block.warps.begin(), block.warps.end(), 0);
  std::iota(block.lanes.begin(), block.lanes.end(), 0);
  std::vector<unsigned> order(size_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  shuffle(order);
  for (unsigned b : order) {
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    prepare(dim, shared_bytes);
    try {
      run_block();
    } catch (...) {  // the fibers stopped half-way: begin them afresh
      for (auto& t : block.pool) t->fiber.start(thread_main);
      throw;
    }
  }
}

void fault(const std::string& what, Where where) {
  throw Fault(place() + ", thread " + text(self().index) + ": " + what + ", " + text(where));
}

void* dynamic_shared() { return block.shared.get(); }

int thread_in_block() { return block.current; }

uint64_t block_serial() { return block.serial; }

int block_barrier(const char* name, bool predicate, Where where) {
  Thread& me = self();
  me.name = name, me.mask = 0, me.where = where;
  if (block.live < block.size) fault(std::string(name) + " after other threads have exited", where);
  if (block.arrived == 0) block.barrier = where;
  if (where.line() != block.barrier.line() || where.file_name() != block.barrier.file_name())
    fault(std::string(name) + " while others wait at " + text(block.barrier), where);
  block.predicates += predicate;
  if (++block.arrived < block.size) return wait(), block.result;
  block.result = block.predicates;
  block.arrived = block.predicates = 0;
  block.reorder = true;
  for (int i = 0; i < block.size; ++i) block.pool[i]->state = Thread::kReady;
  return block.result;
}

void wait_for_lanes(const char* name, unsigned mask, void* mine, Combine combine, Where where) {
  Thread& me = self();
  const int first = block.current / 32 * 32;
  Warp& warp = block.waiting[static_cast<size_t>(first / 32)];
  const unsigned own = 1u << lane();
  me.name = name, me.mask = mask, me.mine = mine, me.where = where;
  if (!(mask & own)) fault(std::string(name) + " with a mask without its own lane", where);
  if (mask & warp.exited) {
    const std::string who = std::to_string(std::countr_zero(mask & warp.exited));
    fault(std::string(name) + " names lane " + who + ", which has exited", where);
  }
  void* arrived[32] = {};
  const auto look = [&](int l) {  // whether lane l has come, too
    const Thread& t = *block.pool[static_cast<size_t>(first + l)];
    const bool here = &t == &me || (t.state == Thread::kWaiting && t.mask == mask && t.name == name);
    if (here) arrived[l] = t.mine;
    return here;
  };
  if (warp.here == 0) warp.name = name, warp.mask = mask;
  if (warp.others == 0 && warp.mask == mask && warp.name == name) {
    warp.here |= own;
    if (warp.here != mask) return wait();
    for (int l = 0; l < 32; ++l)
      if (mask >> l & 1) look(l);
  } else {
    bool complete = true;
    for (int l = 0; l < 32; ++l)
      if (mask >> l & 1) complete &= look(l);
    if (!complete) return ++warp.others, wait();
    warp.others -= std::popcount(mask & ~own & ~warp.here);
  }
  warp.here &= ~mask;
  combine(arrived, mask);
  for (int l = 0; l < 32; ++l)
    if (mask >> l & 1) block.pool[static_cast<size_t>(first + l)]->state = Thread::kReady;
}

}  // namespace emulation
