#include "kernels/transfer.h"

#include "kernels/rms_norm.h"
#include "tests/harness.h"

namespace gsae::test {
namespace {

struct TransferOn : OnDevice {
  // Values that tell which of many they are.
  static std::vector<float> numbered(int64_t n, int which) {
    std::vector<float> v(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) v[static_cast<size_t>(i)] = static_cast<float>(1000 * which + i);
    return v;
  }
  static Tensor host(std::vector<float>& v) { return view(v.data(), {static_cast<int64_t>(v.size())}); }
};
ON_DEVICES(TransferOn);

// More sends than slots, with an op behind each of them: every op sees the values sent before it, none those sent
// after it, and the host's memory is free as soon as send() returns.
TEST_P(TransferOn, AnOpSeesWhatWasSentBeforeIt) {
  constexpr int kSends = 9;
  constexpr int64_t kN = 100;
  Guarded x(ctx, DType::kF32, {kN}), seen(ctx, DType::kF32, {kSends, kN});
  Upload upload(ctx, kN * sizeof(float));
  std::vector<float> want;
  for (int i = 0; i < kSends; ++i) {
    std::vector<float> values = numbered(kN, i);
    want.insert(want.end(), values.begin(), values.end());
    upload.send(ctx, x, host(values));
    std::fill(values.begin(), values.end(), -1.0f);
    copy(ctx, Tensor(seen).rows(i, i + 1).reshape({kN}), x);
  }
  EXPECT_EQ(seen.read(), want);
}

// The ops that were asked for before a send see what was there before it, though they may run after it.
TEST_P(TransferOn, AnOpDoesNotSeeWhatIsSentBehindIt) {
  constexpr int64_t kN = 64;
  Guarded x(ctx, DType::kF32, {1, kN}, numbered(kN, 1)), w(ctx, DType::kF32, {kN}, std::vector<float>(kN, 0.0f));
  Guarded out(ctx, DType::kF32, {1, kN}), want(ctx, DType::kF32, {1, kN});
  rms_norm(ctx, want, x, w, 1e-6f);
  ctx.synchronize();
  Upload upload(ctx, kN * sizeof(float));
  std::vector<float> other = integers(kN, 1, -3, 3);
  rms_norm(ctx, out, x, w, 1e-6f);
  upload.send(ctx, x, view(other.data(), {1, kN}));
  EXPECT_EQ(out.read(), want.read());
  EXPECT_EQ(x.read(), other);
}

// One after the other through the same lane, of any size up to what it was laid out for.
TEST_P(TransferOn, SeveralTensorsShareALane) {
  Upload upload(ctx, 300 * sizeof(float));
  std::vector<Guarded> to;
  std::vector<std::vector<float>> values;
  for (const int64_t n : {300, 1, 7, 256, 300, 2, 33}) {
    values.push_back(numbered(n, static_cast<int>(values.size())));
    to.emplace_back(ctx, DType::kF32, std::initializer_list<int64_t>{n});
    std::vector<float> passing = values.back();
    upload.send(ctx, to.back(), host(passing));
  }
  for (size_t i = 0; i < to.size(); ++i) EXPECT_EQ(to[i].read(), values[i]) << i;
}

TEST_P(TransferOn, ALaneMayGoWhileItsValuesAreOnTheirWay) {
  Guarded x(ctx, DType::kF32, {50});
  std::vector<float> values = numbered(50, 3);
  {
    Upload upload(ctx, 50 * sizeof(float));
    upload.send(ctx, x, host(values));
    Readback readback(ctx, 50 * sizeof(float));
    readback.request(ctx, x);
  }
  EXPECT_EQ(x.read(), values);
}

TEST_P(TransferOn, RefusesWhatDoesNotFit) {
  Upload upload(ctx, 16);
  Readback readback(ctx, 16);
  Guarded five(ctx, DType::kF32, {5}, numbered(5, 0)), four(ctx, DType::kF32, {4}, numbered(4, 0));
  std::vector<float> values = numbered(5, 1);
  if (on_cuda()) {
    EXPECT_THROW(upload.send(ctx, five, host(values)), Error);
  }
  EXPECT_THROW(upload.send(ctx, four, host(values)), Error);
  EXPECT_THROW(readback.wait<float>(), Error);
  EXPECT_FALSE(readback.ready());
  EXPECT_THROW(readback.request(ctx, five), Error);
  EXPECT_NO_THROW(readback.request(ctx, four));
}

// The values as they were at the request, while the ops behind it write over them: ops that wait for no copy, or for
// one behind the request's.
TEST_P(TransferOn, AReadbackIsASnapshot) {
  constexpr int64_t kN = 128;
  Guarded x(ctx, DType::kF32, {kN}), elsewhere(ctx, DType::kF32, {kN}, numbered(kN, 99));
  Upload upload(ctx, kN * sizeof(float));
  Readback readback(ctx, kN * sizeof(float));
  for (int i = 0; i < 5; ++i) {
    std::vector<float> now = numbered(kN, i), later = numbered(kN, 100 + i);
    upload.send(ctx, x, host(now));
    readback.request(ctx, x);
    if (i % 2) upload.send(ctx, x, host(later));
    else copy(ctx, x, elsewhere);
    EXPECT_EQ(x.read(), i % 2 ? later : numbered(kN, 99));
    EXPECT_EQ(readback.wait<float>(), now);
    EXPECT_EQ(readback.wait<float>(), now);  // and stays
  }
}

// Without a wait in between: the last request counts, and the copies of the earlier ones do not get into it.
TEST_P(TransferOn, ARequestTakesThePlaceOfTheOneBefore) {
  constexpr int64_t kN = 40;
  std::vector<Guarded> sources;
  for (int i = 0; i < 6; ++i)
    sources.emplace_back(ctx, DType::kF32, std::initializer_list<int64_t>{kN}, numbered(kN, i));
  Readback readback(ctx, kN * sizeof(float));
  for (int last = 0; last < 6; ++last) {
    for (int i = 0; i <= last; ++i) readback.request(ctx, sources[static_cast<size_t>(i)]);
    EXPECT_EQ(readback.wait<float>(), numbered(kN, last));
  }
  readback.request(ctx, Tensor(sources[3]).rows(0, 5));  // and of another size
  EXPECT_EQ(readback.wait<float>(), numbered(5, 3));
}

TEST_P(TransferOn, ReadyComesTrueByItself) {
  Guarded x(ctx, DType::kF32, {8}, numbered(8, 2));
  Readback readback(ctx, 32);
  EXPECT_FALSE(readback.ready());
  readback.request(ctx, x);
  while (!readback.ready()) {}
  EXPECT_EQ(readback.wait<float>(), numbered(8, 2));
}

// As a training loop has them: several lanes of each kind, used in turn.
TEST_P(TransferOn, LanesDoNotDisturbEachOther) {
  constexpr int64_t kN = 16;
  Guarded a(ctx, DType::kF32, {kN}), b(ctx, DType::kF32, {kN});
  Upload up_a(ctx, kN * 4), up_b(ctx, kN * 4);
  Readback down_a(ctx, kN * 4), down_b(ctx, kN * 4);
  for (int i = 0; i < 6; ++i) {
    std::vector<float> va = numbered(kN, i), vb = numbered(kN, 50 + i);
    up_a.send(ctx, a, host(va));
    down_a.request(ctx, a);
    up_b.send(ctx, b, host(vb));
    copy(ctx, a, b);
    down_b.request(ctx, a);
    EXPECT_EQ(down_a.wait<float>(), va);
    EXPECT_EQ(down_b.wait<float>(), vb);
  }
}

}  // namespace
}  // namespace gsae::test
