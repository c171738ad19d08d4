// What the emulation promises: that it notices. Each kernel here is wrong in one way.

#include "emulation/runtime.h"
#include "kernels/graph.h"
#include "kernels/launch.h"
#include "kernels/matmul.h"
#include "kernels/transfer.h"
#include "tests/harness.h"

namespace gsae::test {
namespace {

constexpr unsigned kAll = 0xffffffffu;

struct Emulation : testing::Test {
  Emulation() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }  // OpenBLAS has threads

  Context ctx{Device::kCuda};
  cudaStream_t stream = ctx.cuda().stream;

  // The message of the fault that the kernel ends in, or "".
  template <class... P, class... A> std::string fault(void (*kernel)(P...), dim3 block, A... args) {
    try {
      launch(kernel, 1, block, 1024, stream, args...);
      CUDA_CHECK(cudaStreamSynchronize(stream));
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

// Three groups of lanes on their own ways, one of them much longer; then all together again.
__global__ void groups_apart(int* out) {
  const int lane = threadIdx.x % 32;
  int sum = 0;
  if (lane < 8) {
    for (int i = 0; i < 20; ++i) sum += __shfl_xor_sync(0xffu, lane, 1 + i % 7);
  } else if (lane < 24) {
    sum = __shfl_sync(0xffff00u, lane, 8);
    __syncwarp(0xffff00u);
    sum += static_cast<int>(__ballot_sync(0xffff00u, lane % 2) >> 8);
  } else {
    sum = __shfl_sync(0xff000000u, lane, 31);
  }
  out[threadIdx.x] = sum + __shfl_xor_sync(kAll, lane, 16);
}
TEST_F(Emulation, GroupsOfAWarpDoNotMix) {
  Guarded out(ctx, DType::kF32, {64});
  launch(groups_apart, 1, 64, 0, stream, reinterpret_cast<int*>(Tensor(out).ptr));
  std::vector<int> got(64);
  CUDA_CHECK(cudaMemcpyAsync(got.data(), Tensor(out).ptr, 256, cudaMemcpyDefault, stream));
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32;
    int want = lane ^ 16;
    if (lane < 8)
      for (int i = 0; i < 20; ++i) want += lane ^ (1 + i % 7);
    else want += lane < 24 ? 8 + 0xaaaa : 31;
    EXPECT_EQ(got[t], want) << "thread " << t;
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

// ---- asynchrony: what nobody waited for has not happened. Under a seed it may have.

__global__ void set(int* out, int value) { *out = value; }
__global__ void add_one(int* out) { *out += 1; }

struct EmulationAsynchrony : Emulation {
  EmulationAsynchrony() {
    CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&pinned), 4));
    CUDA_CHECK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    launch(set, 1, 1, 0, stream, device, 1);
    CUDA_CHECK(cudaStreamSynchronize(stream));
    *pinned = 0;
  }
  ~EmulationAsynchrony() override {
    (void)cudaEventDestroy(event);
    (void)cudaStreamDestroy(other);
    (void)cudaFreeHost(pinned);
  }
  // What the device holds when all work is done.
  int value() {
    CUDA_CHECK(cudaDeviceSynchronize());
    int got = 0;
    CUDA_CHECK(cudaMemcpyAsync(&got, device, 4, cudaMemcpyDeviceToHost, stream));  // pageable: waits
    return got;
  }
  const bool late = emulation::seed() == 0;  // everything runs as late as it may

  Buffer memory{Device::kCuda, 4};
  int* device = reinterpret_cast<int*>(memory.data());
  int* pinned = nullptr;
  cudaStream_t other = nullptr;
  cudaEvent_t event = nullptr;
};

TEST_F(EmulationAsynchrony, AMissingSynchronizeIsSeen) {
  CUDA_CHECK(cudaMemcpyAsync(pinned, device, 4, cudaMemcpyDeviceToHost, stream));
  const int before = *pinned;
  EXPECT_TRUE(before == 0 || (!late && before == 1)) << before;
  CUDA_CHECK(cudaStreamSynchronize(stream));
  EXPECT_EQ(*pinned, 1);
}

TEST_F(EmulationAsynchrony, AMissingDependencyBetweenStreamsIsSeen) {
  for (const bool stated : {false, true}) {
    launch(set, 1, 1, 0, stream, device, 1);
    CUDA_CHECK(cudaStreamSynchronize(stream));
    launch(set, 1, 1, 0, stream, device, 5);
    CUDA_CHECK(cudaEventRecord(event, stream));
    if (stated) CUDA_CHECK(cudaStreamWaitEvent(other, event, 0));
    CUDA_CHECK(cudaMemcpyAsync(pinned, device, 4, cudaMemcpyDeviceToHost, other));
    CUDA_CHECK(cudaStreamSynchronize(other));
    if (stated || late) {
      EXPECT_EQ(*pinned, stated ? 5 : 1);
    }
    CUDA_CHECK(cudaStreamSynchronize(stream));
  }
}

TEST_F(EmulationAsynchrony, AnEventIsThePlaceWhereItWasRecorded) {
  launch(set, 1, 1, 0, stream, device, 5);
  CUDA_CHECK(cudaEventRecord(event, stream));
  CUDA_CHECK(cudaStreamWaitEvent(other, event, 0));  // for 5, whatever is recorded later
  launch(set, 1, 1, 0, stream, device, 6);
  CUDA_CHECK(cudaEventRecord(event, stream));
  CUDA_CHECK(cudaMemcpyAsync(pinned, device, 4, cudaMemcpyDeviceToHost, other));
  CUDA_CHECK(cudaStreamSynchronize(other));
  EXPECT_TRUE(*pinned == 5 || (!late && *pinned == 6)) << *pinned;
  CUDA_CHECK(cudaEventSynchronize(event));
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  EXPECT_EQ(value(), 6);
}

TEST_F(EmulationAsynchrony, TheDefaultStreamIsAnother) {
  launch(set, 1, 1, 0, stream, device, 5);
  launch(add_one, 1, 1, 0, nullptr, device);
  CUDA_CHECK(cudaStreamSynchronize(nullptr));
  if (late) {
    EXPECT_EQ(value(), 5);  // of 1 + 1, and then 5
  }
}

TEST_F(EmulationAsynchrony, WhenACopyReadsItsSource) {
  int pageable = 7;
  CUDA_CHECK(cudaMemcpyAsync(device, &pageable, 4, cudaMemcpyHostToDevice, stream));
  pageable = 8;
  EXPECT_EQ(value(), 7);  // as it was at the call
  for (const bool registered : {false, true}) {
    int mine = 7;
    int* source = registered ? &mine : pinned;
    if (registered) CUDA_CHECK(cudaHostRegister(source, 4, 0));
    *source = 7;
    CUDA_CHECK(cudaMemcpyAsync(device, source, 4, cudaMemcpyHostToDevice, stream));
    *source = 8;  // used again too early
    const int got = value();
    EXPECT_TRUE(got == 8 || (!late && got == 7)) << got;
    if (registered) CUDA_CHECK(cudaHostUnregister(source));
  }
}

TEST_F(EmulationAsynchrony, QueriesSayWhatIsPendingAndEnd) {
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);  // never recorded
  for (int i = 0; i < 5; ++i) launch(add_one, 1, 1, 0, stream, device);
  CUDA_CHECK(cudaEventRecord(event, stream));
  int pending = 0;
  while (cudaEventQuery(event) == cudaErrorNotReady) ++pending;
  EXPECT_LE(pending, 6);
  if (late) {
    EXPECT_EQ(pending, 6);
  }
  EXPECT_EQ(cudaGetLastError(), late ? cudaErrorNotReady : cudaPeekAtLastError());
  (void)cudaGetLastError();
  EXPECT_EQ(value(), 6);
}

TEST_F(EmulationAsynchrony, AReadbackIsNotReadyAtOnce) {
  Readback readback(ctx, 4);
  Tensor one = view(device, {1});
  one.device = Device::kCuda;
  readback.request(ctx, one);
  if (late) {
    EXPECT_FALSE(readback.ready());
    EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);  // that is no error
  }
  EXPECT_EQ(readback.wait<int>(), std::vector{1});
}

TEST_F(EmulationAsynchrony, FreeingWaits) {
  {
    Buffer gone(Device::kCuda, 4);
    int* p = reinterpret_cast<int*>(gone.data());
    launch(set, 1, 1, 0, stream, p, 9);
    CUDA_CHECK(cudaMemcpyAsync(device, p, 4, cudaMemcpyDeviceToDevice, stream));
  }
  EXPECT_EQ(value(), 9);
}

TEST_F(EmulationAsynchrony, AFaultComesOutOfTheNextWait) {
  const auto message = [](auto call) -> std::string {
    try {
      call();
    } catch (const emulation::Fault& e) {
      return e.what();
    }
    return "";
  };
  const std::string at_once = message([&] { launch(barrier_in_branch, 1, 64, 0, stream); });
  const std::string waited = message([&] { ctx.synchronize(); });
  expect_contains(late ? waited : at_once + waited, "barrier_in_branch");
  EXPECT_EQ(message([&] { ctx.synchronize(); }), "");
  // Met where a destructor waits, it waits for a call that may throw.
  bool seen = message([&] { launch(barrier_in_branch, 1, 64, 0, stream); }) != "";
  Buffer(Device::kCuda, 4);
  seen |= message([&] { ctx.synchronize(); }) != "";
  EXPECT_TRUE(seen);
}

TEST_F(EmulationAsynchrony, RefusesInACaptureWhatAReplayCannotRepeat) {
  int pageable = 7;
  CUDA_CHECK(cudaEventRecord(event, other));
  const auto refused = [&](auto call) {
    Graph graph;
    graph.run(ctx, [] {});
    EXPECT_THROW(graph.run(ctx, call), Error);
    EXPECT_EQ(fault(set, 1, device, 3), "");  // the stream is usable
    EXPECT_EQ(value(), 3);
  };
  refused([&] { CUDA_CHECK(cudaMemcpyAsync(device, &pageable, 4, cudaMemcpyHostToDevice, stream)); });
  refused([&] { CUDA_CHECK(cudaMemcpyAsync(&pageable, device, 4, cudaMemcpyDeviceToHost, stream)); });
  refused([&] { CUDA_CHECK(cudaStreamWaitEvent(stream, event, 0)); });
  refused([&] { CUDA_CHECK(cudaEventSynchronize(event)); });
}

// ---- devices

struct Environment {
  Environment(const char* name, const char* value) : name(name) { setenv(name, value, 1); }
  ~Environment() { unsetenv(name); }
  const char* name;
};

TEST_F(Emulation, AMachineWithoutAGpu) {
  const Environment none("GSAE_EMULATED_GPUS", "0");
  EXPECT_FALSE(available(Device::kCuda));
  try {
    Context again(Device::kCuda);
    FAIL() << "not refused";
  } catch (const Error& e) {
    expect_contains(e.what(), "sees no GPU");
  }
}
TEST_F(Emulation, TwoDevicesKeepTheirMemoryApart) {
  const Environment two("GSAE_EMULATED_GPUS", "2");
  Buffer first(Device::kCuda, 4);
  {
    Context second(Device::kCuda, 1);
    Buffer memory(Device::kCuda, 4);
    int* p = reinterpret_cast<int*>(memory.data());
    launch(set, 1, 1, 0, second.cuda().stream, p, 5);
    EXPECT_THROW(launch(set, 1, 1, 0, stream, p, 5), Error);  // a stream of the other device
    CUDA_CHECK(cudaMemcpyAsync(first.data(), p, 4, cudaMemcpyDefault, second.cuda().stream));
    second.synchronize();
    EXPECT_DEATH(
        {
          launch(set, 1, 1, 0, second.cuda().stream, reinterpret_cast<int*>(first.data()), 5);
          second.synchronize();
        },
        "AddressSanitizer.*use-after-poison");
  }
  CUDA_CHECK(cudaSetDevice(0));
  EXPECT_THROW(Context(Device::kCuda, 2), Error);
}
TEST_F(Emulation, DeviceMemoryEnds) {
  size_t before = 0, total = 0, after = 0;
  CUDA_CHECK(cudaMemGetInfo(&before, &total));
  const Environment small("GSAE_EMULATED_MEMORY", std::to_string(total - before + (8 << 20)).c_str());
  {
    Buffer x(Device::kCuda, 3 << 20);  // of pages of 2 MiB
    CUDA_CHECK(cudaMemGetInfo(&after, &total));
    EXPECT_EQ(after, size_t(4) << 20);
    EXPECT_THROW(Buffer(Device::kCuda, 5 << 20), Error);
    Buffer y(Device::kCuda, 4 << 20);
  }
  EXPECT_GE(emulation::peak_bytes(), size_t(8) << 20);
  CUDA_CHECK(cudaMemGetInfo(&after, &total));
  EXPECT_EQ(after, size_t(8) << 20);
}

// ---- products

TEST_F(Emulation, AProductStaysInsideItsAllocations) {
  Guarded a(ctx, DType::kF32, {4, 8}, std::vector<float>(32)), b(ctx, DType::kF32, {8, 8}, std::vector<float>(64));
  Guarded out(ctx, DType::kF32, {4, 8});
  const auto product = [&](Tensor o, Tensor x, Tensor y) -> std::string {
    try {
      matmul(ctx, o, x, y);
      ctx.synchronize();
    } catch (const emulation::Fault& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(product(out, a, b), "");
  Tensor tall = a, wide = out;
  tall.dim[0] = wide.dim[0] = 5;
  expect_contains(product(wide, tall, b), "takes 160 bytes, and 128");
  expect_contains(product(Tensor(b).rows(0, 4), a, b), "overlaps the result");
}

TEST_F(Emulation, AnAlgorithmServesItsOwnProblemAlone) {
  Guarded a(ctx, DType::kF32, {4, 8}, std::vector<float>(32)), b(ctx, DType::kF32, {8, 8}, std::vector<float>(64));
  Guarded out(ctx, DType::kF32, {4, 8});
  const auto both = [&] {
    matmul(ctx, out, a, b);
    matmul(ctx, out, a, b, {.transpose_b = true});
  };
  both();
  auto& chosen = ctx.cuda().matmul_algorithms;
  ASSERT_EQ(chosen.size(), 2u);
  std::swap(chosen.begin()->second, std::next(chosen.begin())->second);
  EXPECT_THROW(both(), Error);
}

}  // namespace
}  // namespace gsae::test
