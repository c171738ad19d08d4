#include "kernels/entries.h"

#include <bit>
#include <memory>

#include "kernels/elementwise.h"
#include "kernels/graph.h"
#include "tests/harness.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

// Everything here is compared exactly: there is one rounding, of z + b_enc, which IEEE defines.

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

// Entries whose tensors lie between canaries, full of -1.
struct GuardedEntries {
  GuardedEntries(Context& ctx, int64_t batch, int64_t latents, int64_t capacity)
      : ctx(ctx),
        begin(ctx, DType::kI32, {latents + 1}),
        row(ctx, DType::kI32, {capacity}),
        owner(ctx, DType::kI32, {capacity}),
        z(ctx, DType::kF32, {capacity}),
        row_begin(ctx, DType::kI32, {batch + 1}),
        latent(ctx, DType::kI32, {capacity}),
        place(ctx, DType::kI32, {capacity}),
        count(ctx, DType::kI64, {1}) {
    entries.begin = begin, entries.row = row, entries.owner = owner, entries.z = z;
    entries.row_begin = row_begin, entries.latent = latent, entries.place = place, entries.count = count;
  }
  operator const Entries&() const { return entries; }

  // read() looks at the canaries
  std::vector<int32_t> integers(Guarded& t) const {
    t.read();
    return download<int32_t>(ctx, t);
  }
  int64_t counted() {
    count.read();
    return download<int64_t>(ctx, count).at(0);
  }

  Context& ctx;
  Guarded begin, row, owner, z, row_begin, latent, place, count;
  Entries entries;
};

// What is selected from: a latent a row, as a tile has it.
struct Problem {
  int64_t batch, latents;
  std::vector<float> zt, bias, theta;
  float half = 0.5f;

  float z(int64_t i, int64_t r) const { return zt[i * batch + r] + bias[i]; }
  bool listed(int64_t i, int64_t r) const {
    const float least = theta[i] - half;
    return !(z(i, r) <= least);
  }
  int64_t count() const {
    int64_t n = 0;
    for (int64_t i = 0; i < latents; ++i)
      for (int64_t r = 0; r < batch; ++r) n += listed(i, r);
    return n;
  }
};

// Multiples of 1/8, so that many z are exactly at theta - half; where `fine`, sums that round. About `density` of each
// latent's rows are entries, except that of every seven latents one has none and one has them all.
Problem problem(int64_t batch, int64_t latents, double density, bool fine = false) {
  Problem p{batch, latents, {}, {}, {}};
  const auto seed = static_cast<uint32_t>(batch * 131 + latents);
  if (fine) {
    p.zt = uniform(batch * latents, seed, DType::kF32, 0, 1);
    p.bias = uniform(latents, seed + 1, DType::kF32, -3, 3);
    for (int64_t i = 0; i < latents; ++i) p.theta.push_back(static_cast<float>(1 - density) + p.bias[i] + p.half);
  } else {
    p.zt = integers(batch * latents, seed, -800, 800);
    p.bias = integers(latents, seed + 1, -9, 9);
    for (float& v : p.zt) v /= 8;
    for (int64_t i = 0; i < latents; ++i) {
      p.bias[i] /= 8;
      p.theta.push_back(std::round(static_cast<float>(100 - 200 * density) * 8) / 8 + p.bias[i] + p.half);
    }
  }
  for (int64_t i = 3; i < latents; i += 7) p.theta[i] = kInf;
  for (int64_t i = 5; i < latents; i += 7) p.theta[i] = -1000;
  return p;
}

struct Lists {
  std::vector<int32_t> begin{0}, row, owner, row_begin{0}, latent, place;
  std::vector<float> z;
};

// By row from place to place of the lists by latent, which is another way than any of the implementations'.
Lists lists(const Problem& p) {
  Lists l;
  std::vector<std::vector<std::pair<int32_t, int32_t>>> by_row(p.batch);
  for (int64_t i = 0; i < p.latents; ++i) {
    for (int64_t r = 0; r < p.batch; ++r) {
      if (!p.listed(i, r)) continue;
      by_row[r].emplace_back(i, l.row.size());
      l.row.push_back(static_cast<int32_t>(r));
      l.owner.push_back(static_cast<int32_t>(i));
      l.z.push_back(p.z(i, r));
    }
    l.begin.push_back(static_cast<int32_t>(l.row.size()));
  }
  for (const auto& row : by_row) {
    for (const auto& [latent, place] : row) l.latent.push_back(latent), l.place.push_back(place);
    l.row_begin.push_back(static_cast<int32_t>(l.latent.size()));
  }
  return l;
}

// want, and behind it what was there before: nothing is written to the rest of the capacity.
void expect_list(const std::vector<int32_t>& got, std::vector<int32_t> want, const char* name) {
  ASSERT_LE(want.size(), got.size()) << name;
  want.resize(got.size(), -1);
  size_t wrong = 0;
  while (wrong < got.size() && got[wrong] == want[wrong]) ++wrong;
  if (wrong < got.size()) ADD_FAILURE() << name << "[" << wrong << "] is " << got[wrong] << ", not " << want[wrong];
}
void expect_values(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_LE(want.size(), got.size());
  for (size_t k = 0; k < got.size(); ++k) {
    if (k < want.size() && std::isnan(want[k])) ASSERT_TRUE(std::isnan(got[k])) << k;  // NaNs differ between devices
    else ASSERT_EQ(std::bit_cast<int32_t>(got[k]), k < want.size() ? std::bit_cast<int32_t>(want[k]) : -1) << k;
  }
}

void expect_lists(GuardedEntries& e, Lists want, int64_t count) {
  const auto fit = static_cast<size_t>(e.entries.capacity());
  EXPECT_EQ(e.counted(), count);
  const bool all = want.row.size() <= fit;
  if (!all) {
    for (auto* list : {&want.row, &want.owner}) list->resize(fit);
    want.z.resize(fit);
    for (int32_t& b : want.begin) b = std::min(b, static_cast<int32_t>(fit));
  }
  EXPECT_EQ(e.integers(e.begin), want.begin);
  expect_list(e.integers(e.row), want.row, "row");
  expect_list(e.integers(e.owner), want.owner, "owner");
  expect_values(e.z.read(), want.z);
  // by row they are of no use, but their canaries are
  const auto row_begin = e.integers(e.row_begin), latent = e.integers(e.latent), place = e.integers(e.place);
  if (!all) return;
  EXPECT_EQ(row_begin, want.row_begin);
  expect_list(latent, want.latent, "latent");
  expect_list(place, want.place, "place");
}

struct EntriesOn : OnDevice {
  // tile: so many latents at a time.
  void make(const Entries& e, const Problem& p, int64_t tile) {
    const Guarded bias(ctx, DType::kF32, {p.latents}, p.bias), theta(ctx, DType::kF32, {p.latents}, p.theta);
    clear_entries(ctx, e);
    for (int64_t i = 0; i < p.latents; i += tile) {
      const int64_t end = std::min(p.latents, i + tile);
      // of its own: reads beyond the tile are seen
      const Guarded zt(ctx, DType::kF32, {end - i, p.batch},
                       std::vector<float>(p.zt.begin() + i * p.batch, p.zt.begin() + end * p.batch));
      select_entries(ctx, e, zt, Tensor(bias).rows(i, end), Tensor(theta).rows(i, end), p.half, i);
      ctx.synchronize();  // before the tile goes
    }
    transpose_entries(ctx, e);
    ctx.synchronize();
  }
  void expect_right(const Problem& p, int64_t tile, int64_t room = 5) {
    SCOPED_TRACE(testing::Message() << p.latents << " latents, " << tile << " at a time, of " << p.batch << " rows");
    const int64_t count = p.count();
    GuardedEntries e(ctx, p.batch, p.latents, std::max<int64_t>(1, count + room));
    make(e, p, tile);
    const Lists want = lists(p);
    expect_lists(e, want, count);
    std::vector<int32_t> before(p.latents), after(p.latents);
    for (int64_t i = 0; i < p.latents; ++i) {
      before[i] = static_cast<int32_t>(i % 3);
      after[i] = before[i] + want.begin[i + 1] - want.begin[i];
    }
    Guarded fired(ctx, DType::kI32, {p.latents});
    upload(ctx, fired, before);
    count_entries(ctx, fired, e);
    EXPECT_EQ(e.integers(fired), after);
  }
};
ON_DEVICES(EntriesOn);

TEST_P(EntriesOn, Naive) {
  for (const int64_t batch : {1, 2, 31, 32, 33, 64, 100, 127, 128, 256, 257})
    for (const int64_t latents : {1, 20}) {
      expect_right(problem(batch, latents, 0.1), latents);
      expect_right(problem(batch, latents, 0.02, true), latents);
    }
}

// Several parts of a latent's rows, the last one ragged or not; three digits of the sort.
TEST_P(EntriesOn, ManyRows) {
  for (const int64_t batch : {4095, 4096, 4097, 9000}) expect_right(problem(batch, 8, 0.01), 3);
  expect_right(problem(66000, 3, 0.002, true), 2);
  if (emulated(ctx)) return;
  expect_right(problem(4096, 100, 0.003), 70);
  expect_right(problem(1 << 17, 5, 0.01, true), 4);
}

// Whatever the tiles, the lists are the same.
TEST_P(EntriesOn, Tiles) {
  const Problem p = problem(200, 67, 0.05);
  for (const int64_t tile : {1, 7, 32, 66, 67}) expect_right(p, tile);
}

// More latents in a tile than one launch has, and empty latents and rows between few entries.
TEST_P(EntriesOn, ManyLatents) {
  Problem p{2, 8300, std::vector<float>(2 * 8300, 0), std::vector<float>(8300, 0), std::vector<float>(8300, 1)};
  for (const int64_t at : {0, 5, 8191 * 2 + 1, 8192 * 2, 8192 * 2 + 1, 8299 * 2 + 1}) p.zt[at] = 3;
  expect_right(p, p.latents);
}

TEST_P(EntriesOn, NoneAndAll) {
  Problem p = problem(70, 40, 0.1);
  std::fill(p.theta.begin(), p.theta.end(), kInf);
  expect_right(p, 16);
  std::fill(p.theta.begin(), p.theta.end(), -1000);
  expect_right(p, 16);
  Problem full = problem(64, 40, 0);  // of as many places as whole blocks have threads
  std::fill(full.theta.begin(), full.theta.end(), -1000);
  expect_right(full, 40, 0);
}

// By hand: half 1/2.
TEST_P(EntriesOn, ExactlyAtTheBorder) {
  Problem p{6, 2, {}, {0, 0.25f}, {1, -0.0f}};
  const float above = std::nextafter(0.5f, 1.0f), below = std::nextafter(0.5f, 0.0f);
  p.zt = {0.5f, above, below, 1, kInf, -kInf, -0.75f, -0.5f, -1, 0, -0.25f, -100};
  GuardedEntries e(ctx, 6, 2, 12);
  make(e, p, 2);
  EXPECT_EQ(e.integers(e.begin), (std::vector<int32_t>{0, 3, 6}));
  expect_list(e.integers(e.row), {1, 3, 4, 1, 3, 4}, "row");
  expect_values(e.z.read(), {above, 1, kInf, -0.25f, 0.25f, 0});
  EXPECT_EQ(e.integers(e.row_begin), (std::vector<int32_t>{0, 0, 2, 2, 4, 6, 6}));
  expect_list(e.integers(e.latent), {0, 1, 0, 1, 0, 1}, "latent");
  expect_list(e.integers(e.place), {0, 3, 1, 4, 2, 5}, "place");
}

// In f32: theta - half rounds to theta here, and z + b_enc to what z is not.
TEST_P(EntriesOn, ComparedAsRounded) {
  Problem p{3, 2, {}, {1, 0}, {1, 0x1p24f}, 0x1p-26f};
  p.zt = {0x1p-25f, 0x1p-23f, 0, 0x1p24f, 0x1p24f + 2, 0x1p24f - 1};
  GuardedEntries e(ctx, 3, 2, 6);
  make(e, p, 2);
  expect_list(e.integers(e.row), {1, 1}, "row");
  expect_values(e.z.read(), {1 + 0x1p-23f, 0x1p24f + 2});
}

// A NaN is an entry wherever it comes from.
TEST_P(EntriesOn, NaN) {
  Problem p = problem(100, 12, 0.05);
  for (const int64_t at : {0, 99, 317, 1199}) p.zt[at] = kNaN;
  p.zt[3 * 100 + 50] = kNaN;  // its theta is infinite
  p.zt[600] = -kNaN;
  p.bias[7] = kNaN;
  p.theta[8] = kNaN;
  expect_right(p, 5);
  EXPECT_TRUE(p.listed(3, 50) && p.listed(7, 0) && p.listed(8, 0));
}

// The count is right, the lists are full, and nothing lies beyond them; whether the capacity is passed within a latent,
// with a latent, in an early tile or in the last.
TEST_P(EntriesOn, Overflow) {
  const Problem p = problem(90, 33, 0.1);
  const int64_t count = p.count();
  const Lists want = lists(p);
  ASSERT_GT(count, 400);
  for (const int64_t capacity : {int64_t{1}, int64_t{17}, int64_t{want.begin[8]}, int64_t{want.begin[16]},
                                 int64_t{want.begin[20]} + 1, count - 1, count})
    for (const int64_t tile : {8, 33}) {
      SCOPED_TRACE(testing::Message() << "capacity " << capacity << " of " << count << ", tiles of " << tile);
      GuardedEntries e(ctx, p.batch, p.latents, capacity);
      make(e, p, tile);
      expect_lists(e, want, count);
    }
}

// A capacity of which hardly anything is used; on cuda a block of the sort has several pieces then. So many that all
// blocks have some are for a GPU.
TEST_P(EntriesOn, LargeCapacity) {
  expect_right(problem(260, 40, 0.25), 40, (2 << 20) + 1);
  if (!on_cuda() || emulated(ctx)) return;
  Problem p = problem(1024, 2100, 0);
  std::fill(p.theta.begin(), p.theta.end(), -1000);
  expect_right(p, 1000);
}

// Lists of an earlier step leave no trace.
TEST_P(EntriesOn, Again) {
  const Problem many = problem(150, 30, 0.3), few = problem(150, 30, 0.01);
  GuardedEntries e(ctx, 150, 30, many.count());
  for (const Problem* p : {&many, &few, &many}) {
    make(e, *p, 11);
    const Lists want = lists(*p);
    EXPECT_EQ(e.counted(), p->count());
    EXPECT_EQ(e.integers(e.begin), want.begin);
    EXPECT_EQ(e.integers(e.row_begin), want.row_begin);
    const auto latent = e.integers(e.latent), place = e.integers(e.place);
    EXPECT_TRUE(std::equal(want.latent.begin(), want.latent.end(), latent.begin()));
    EXPECT_TRUE(std::equal(want.place.begin(), want.place.end(), place.begin()));
  }
}

// Eager, captured and replayed, with other values in the same tensors.
TEST_P(EntriesOn, Graph) {
  constexpr int64_t kBatch = 300, kLatents = 20, kTile = 8;
  Guarded zt(ctx, DType::kF32, {kLatents, kBatch}), bias(ctx, DType::kF32, {kLatents}),
      theta(ctx, DType::kF32, {kLatents});
  GuardedEntries e(ctx, kBatch, kLatents, kBatch * kLatents);
  const Entries& entries = e;
  Graph graph;
  for (int run = 0; run < 4; ++run) {
    SCOPED_TRACE(run);
    const Problem p = problem(kBatch, kLatents, run == 0 ? 0.02 : 0.02 * run);  // the lists grow: no old ones are seen
    upload(ctx, zt, p.zt), upload(ctx, bias, p.bias), upload(ctx, theta, p.theta);
    graph.run(ctx, [&] {
      clear_entries(ctx, entries);
      for (int64_t i = 0; i < kLatents; i += kTile) {
        const int64_t end = std::min(kLatents, i + kTile);
        select_entries(ctx, entries, Tensor(zt).rows(i, end), Tensor(bias).rows(i, end), Tensor(theta).rows(i, end),
                       p.half, i);
      }
      transpose_entries(ctx, entries);
    });
    expect_lists(e, lists(p), p.count());
  }
}

TEST_P(EntriesOn, AsManyThreadsAsThereAre) {
  const Problem p = problem(97, 60, 0.2), rows = problem(5000, 9, 0.01);
  for (const int threads : {1, 2, 3, 7}) {
    const Threads scope(threads);
    expect_right(p, 25);
    if (!on_cuda()) expect_right(rows, 4);
  }
}

// A tile of more elements than 2^31, of which a few are not zero. On the CPU its pages are only read, and so take no
// memory.
TEST_P(EntriesOn, TileBeyond32Bits) {
  if (cuda_backend() == CudaBackend::kEmulated)
    GTEST_SKIP() << "too many elements for the emulation; the CPU's code is tested by the build without CUDA";
  constexpr int64_t kBatch = Entries::kMostRows, kLatents = 129;
  static_assert(kBatch * kLatents > int64_t{1} << 31);
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> host;
  Buffer device;
  Tensor zt = view<float>(nullptr, {kLatents, kBatch});
  zt.device = ctx.device();
  if (on_cuda()) {
    device = Buffer(ctx.device(), zt.bytes());
    zt.ptr = device.data();
    fill_zero(ctx, zt);
  } else {
    host.reset(static_cast<float*>(std::calloc(kBatch * kLatents, sizeof(float))));
    if (!host) GTEST_SKIP() << "not so much address space here";
    zt = view(host.get(), {kLatents, kBatch});
  }
  const std::vector<int32_t> rows{0, 7, kBatch - 1, 3, kBatch - 2, kBatch - 1}, owners{0, 0, 64, 127, 128, 128};
  const std::vector<float> values{2, 3, 200, 300, 301, 302};
  std::vector<float> biases, thetas;  // other ones for each
  for (int64_t i = 0; i < kLatents; ++i) biases.push_back(float(i)), thetas.push_back(float(i + 1));
  for (size_t k = 0; k < values.size(); ++k) {
    float z = values[k] - biases[owners[k]];
    copy(ctx, zt.rows(owners[k], owners[k] + 1).reshape({kBatch}).rows(rows[k], rows[k] + 1), view(&z, {1}));
    ctx.synchronize();  // before z goes
  }
  const Guarded bias(ctx, DType::kF32, {kLatents}, biases), theta(ctx, DType::kF32, {kLatents}, thetas);
  GuardedEntries e(ctx, kBatch, kLatents, 10);
  clear_entries(ctx, e);
  select_entries(ctx, e, zt, bias, theta, 0.5f, 0);
  transpose_entries(ctx, e);
  EXPECT_EQ(e.counted(), 6);
  expect_list(e.integers(e.row), rows, "row");
  expect_list(e.integers(e.owner), owners, "owner");
  expect_values(e.z.read(), values);
  expect_list(e.integers(e.place), {0, 3, 1, 4, 2, 5}, "place");
  expect_list(e.integers(e.latent), {0, 127, 0, 128, 64, 128}, "latent");
}

TEST_P(EntriesOn, Refuses) {
  Arena plan;
  EXPECT_THROW(Entries(plan, 4, 5, 0), Error);
  EXPECT_THROW(Entries(plan, 4, 5, int64_t{1} << 31), Error);
  EXPECT_THROW(Entries(plan, 0, 5, 6), Error);
  EXPECT_THROW(Entries(plan, Entries::kMostRows + 1, 5, 6), Error);
  EXPECT_THROW(Entries(plan, 4, int64_t{1} << 31, 6), Error);
  GuardedEntries e(ctx, 4, 5, 6);
  Guarded zt(ctx, DType::kF32, {2, 4}), other(ctx, DType::kF32, {2, 3}), narrow(ctx, DType::kBF16, {2, 4}),
      v(ctx, DType::kF32, {2}), w(ctx, DType::kF32, {3});
  EXPECT_THROW(select_entries(ctx, e, other, v, v, 0.5f, 0), Error);
  EXPECT_THROW(select_entries(ctx, e, narrow, v, v, 0.5f, 0), Error);
  EXPECT_THROW(select_entries(ctx, e, zt, w, v, 0.5f, 0), Error);
  EXPECT_THROW(select_entries(ctx, e, zt, v, w, 0.5f, 0), Error);
  EXPECT_THROW(select_entries(ctx, e, zt, v, v, 0.5f, 4), Error);
  EXPECT_THROW(select_entries(ctx, e, zt, v, v, 0.5f, -1), Error);
  EXPECT_THROW(count_entries(ctx, Guarded(ctx, DType::kI32, {6}), e), Error);
  EXPECT_THROW(count_entries(ctx, Guarded(ctx, DType::kF32, {5}), e), Error);
}

// What a step's memory plan says.
TEST(EntriesTest, LaysOut) {
  Arena plan;
  const Entries e(plan, 7, 11, 13);
  EXPECT_EQ(e.batch(), 7);
  EXPECT_EQ(e.latents(), 11);
  EXPECT_EQ(e.capacity(), 13);
  EXPECT_EQ(plan.entries().size(), 9u);
  for (const Arena::Entry& entry : plan.entries()) EXPECT_EQ(entry.name.rfind("entries.", 0), 0u) << entry.name;
}

}  // namespace
}  // namespace gsae::test
