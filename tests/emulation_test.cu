// What the emulation promises: that it notices. Each kernel here is wrong in one way.

#include "kernels/graph.h"
#include "kernels/launch.h"
#include "tests/harness.h"

namespace gsae::test {
namespace {

constexpr unsigned kAll = 0xffffffffu;

struct Emulation : testing::Test {
  Emulation() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }  // OpenBLAS has threads

  Context ctx{Device::kCuda};
  cudaStream_t stream = ctx.cuda().stream;

  // The message of the fault that the launch ends in, or "".
  template <class... P, class... A> std::string fault(void (*kernel)(P...), dim3 block, A... args) {
    try {
      launch(kernel, 1, block, 1024, stream, args...);
    } catch (const emulation::Fault& e) {
      return e.what();
    }
    return "";
  }
};

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

// ---- threads that wait for what never comes

__global__ void barrier_in_branch() {
  if (threadIdx.x < 40) __syncthreads();
}
__global__ void two_barriers() {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
}
__global__ void shuffle_without_a_lane() {
  if (threadIdx.x != 3) __shfl_xor_sync(kAll, 1, 1);
}
__global__ void shuffle_from_outside() { __shfl_sync(0xfu, 1, 4); }
__global__ void mixed_collectives() {
  if (threadIdx.x % 2) __ballot_sync(kAll, 1);
  else __syncwarp();
}

TEST_F(Emulation, ReportsABarrierThatSomeThreadsMiss) {
  const std::string what = fault(barrier_in_branch, 64);
  expect_contains(what, "barrier_in_branch");
  expect_contains(what, "block (0,0,0)");
  expect_contains(what, "thread (");
  expect_contains(what, "emulation_test.cu:");
}
TEST_F(Emulation, ReportsDivergentBarriers) {
  expect_contains(fault(two_barriers, 64), "__syncthreads while others wait at");
}
TEST_F(Emulation, ReportsAShuffleWithoutALane) {
  const std::string what = fault(shuffle_without_a_lane, 32);
  expect_contains(what, "shuffle_without_a_lane");
  EXPECT_TRUE(what.find("names lane 3, which has exited") != std::string::npos ||
              what.find("deadlock") != std::string::npos)
      << what;
}
TEST_F(Emulation, ReportsAShuffleInAPartialWarp) {
  expect_contains(fault(shuffle_without_a_lane, 3), "names lane 3, which has exited");
}
TEST_F(Emulation, ReportsAShuffleFromOutsideItsMask) {
  expect_contains(fault(shuffle_from_outside, 4), "reads lane 4, not in its mask");
}
TEST_F(Emulation, ReportsMixedCollectives) { expect_contains(fault(mixed_collectives, 32), "deadlock"); }

// And goes on afterwards.
__global__ void thread_sum(int* out) {
  const int n = __syncthreads_count(threadIdx.x % 3 == 0);
  atomicAdd(out, n);
}
TEST_F(Emulation, SurvivesAFault) {
  Buffer out(Device::kCuda, 4);
  fault(barrier_in_branch, 64);
  CUDA_CHECK(cudaMemsetAsync(out.data(), 0, 4, stream));
  EXPECT_EQ(fault(thread_sum, 64, reinterpret_cast<int*>(out.data())), "");
  int got = 0;
  CUDA_CHECK(cudaMemcpyAsync(&got, out.data(), 4, cudaMemcpyDeviceToHost, stream));
  EXPECT_EQ(got, 64 * 22);
}

// ---- the collectives, against their definitions

__global__ void collectives(int* out) {
  const int lane = threadIdx.x % 32;
  int* o = out + 8 * threadIdx.x;
  o[0] = __shfl_sync(kAll, lane, 5);
  o[1] = __shfl_up_sync(kAll, lane, 3, 8);
  o[2] = __shfl_down_sync(kAll, lane, 3, 8);
  o[3] = __shfl_xor_sync(kAll, lane, 9, 16);
  o[4] = static_cast<int>(__ballot_sync(kAll, lane % 2));
  o[5] = static_cast<int>(__match_any_sync(kAll, lane % 4));
  o[6] = __any_sync(kAll, lane == 7) + 2 * __all_sync(kAll, lane < 31);
  o[7] = __syncthreads_or(threadIdx.x == 40) + 2 * __syncthreads_and(threadIdx.x < 64);
}
TEST_F(Emulation, CollectivesFollowTheirDefinitions) {
  Guarded out(ctx, DType::kF32, {64, 8});
  launch(collectives, 1, 64, 0, stream, reinterpret_cast<int*>(Tensor(out).ptr));
  std::vector<int> o(64 * 8);
  CUDA_CHECK(cudaMemcpyAsync(o.data(), Tensor(out).ptr, 4 * o.size(), cudaMemcpyDefault, stream));
  for (int t = 0; t < 64; ++t) {
    const int l = t % 32;
    const std::vector<int> want{
        5, l % 8 < 3 ? l : l - 3, l % 8 > 4 ? l : l + 3, l ^ 9, int(0xaaaaaaaau), int(0x11111111u << l % 4), 1, 3};
    EXPECT_EQ(std::vector<int>(o.begin() + 8 * t, o.begin() + 8 * t + 8), want) << "thread " << t;
  }
}

// ---- memory

__global__ void writes_one_too_many(float* x, int n) {
  if (threadIdx.x == 0) x[n] = 1;
}
__global__ void reads_one_too_many_shared(float* x) {
  x[threadIdx.x] = dynamic_shared<float>()[threadIdx.x + 256];  // of 1024 bytes
}
__global__ void loads_misaligned(float* x) { x[0] = reinterpret_cast<const float4*>(x + 1)->x; }
TEST_F(Emulation, StopsAtTheFirstByteOutOfBounds) {
  Buffer x(Device::kCuda, 400);
  auto* p = reinterpret_cast<float*>(x.data());
  EXPECT_DEATH(fault(writes_one_too_many, 32, p, 100), "AddressSanitizer.*writes_one_too_many");
  EXPECT_DEATH(fault(reads_one_too_many_shared, 32, p), "AddressSanitizer");
  EXPECT_DEATH(fault(loads_misaligned, 1, p), "misaligned address");
}
TEST_F(Emulation, KeepsTheHostOutOfDeviceMemory) {
  Buffer x(Device::kCuda, 400);
  volatile auto* p = reinterpret_cast<float*>(x.data());
  EXPECT_DEATH(p[0] = 1, "AddressSanitizer.*use-after-poison");
}
TEST_F(Emulation, DeviceMemoryBeginsAsNan) {
  Buffer x(Device::kCuda, 4);
  float got = 0;
  CUDA_CHECK(cudaMemcpyAsync(&got, x.data(), 4, cudaMemcpyDefault, stream));
  EXPECT_TRUE(std::isnan(got));
}

// ---- launches that the GPU would refuse

__global__ void nothing() {}
TEST_F(Emulation, RefusesWhatTheGpuRefuses) {
  EXPECT_THROW(launch(nothing, 0, 32, 0, stream), Error);
  EXPECT_THROW(launch(nothing, 1, 1025, 0, stream), Error);
  EXPECT_THROW(launch(nothing, 1, 32, (227 << 10) + 1, stream), Error);
  EXPECT_NO_THROW(launch(nothing, 1, 32, 227 << 10, stream));
  try {
    launch(nothing, 1, 1025, 0, stream);
  } catch (const Error& e) {  // and says who launched
    expect_contains(e.what(), "emulation_test.cu:" + std::to_string(__LINE__ - 2));
    expect_contains(e.what(), "cudaErrorInvalidConfiguration");
  }
  Graph graph;
  Buffer x;
  graph.run(ctx, [] {});
  EXPECT_THROW(graph.run(ctx, [&] { x = Buffer(Device::kCuda, 4); }), Error);
  EXPECT_THROW(graph.run(ctx, [&] { ctx.synchronize(); }), Error);
}

// ---- the order of threads: a race that the program's own order hides, found by other orders

__global__ void missing_barrier(int* out) {
  int* shared = dynamic_shared<int>();
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = shared[threadIdx.x / 2];  // written by an earlier thread, if in order
}
TEST_F(Emulation, OtherOrdersShowAMissingBarrier) {
  Guarded out(ctx, DType::kF32, {64});
  launch(missing_barrier, 1, 64, 1024, stream, reinterpret_cast<int*>(Tensor(out).ptr));
  std::vector<int> got(64), want(64);
  CUDA_CHECK(cudaMemcpyAsync(got.data(), Tensor(out).ptr, 256, cudaMemcpyDefault, stream));
  for (int i = 0; i < 64; ++i) want[i] = i / 2;
  EXPECT_EQ(got == want, emulation::seed() == 0);
}

}  // namespace
}  // namespace gsae::test
