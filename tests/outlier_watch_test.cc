#include "sae/outlier_watch.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "tests/harness.h"

namespace gsae::test {
namespace {

struct OutlierWatchTest : OnDevice {};
ON_DEVICES(OutlierWatchTest);

constexpr int64_t kChunk = 16, kSlots = 200;
const std::vector<int64_t> kWidths{3, 5};

// A buffer of two places, filled with rows of given lengths.
struct Watched {
  Context ctx;
  Buffer memory;
  std::unique_ptr<ActivationBuffer> buffer;
  OutlierWatch watch;

  Watched(const Context& on, double longest) : ctx(on), watch(2, longest) {
    Arena plan;
    ActivationBuffer(plan, kSlots, kWidths, DType::kF32, kChunk, 4, 1, false);
    memory = Buffer(ctx.device(), plan.used());
    Arena arena(memory);
    buffer = std::make_unique<ActivationBuffer>(arena, kSlots, kWidths, DType::kF32, kChunk, 4, 1, false);
  }

  // Row r is (0, ..., 0, length of r) at each place; a length of 0 is a row that is not kept.
  std::optional<OutlierWatch::Broken> fill(const std::vector<std::vector<float>>& lengths) {
    const auto n = static_cast<int64_t>(lengths[0].size());
    std::vector<uint8_t> keep;
    for (const float length : lengths[0]) keep.push_back(length != 0);
    buffer->expect(ctx, keep);
    for (int64_t p = 0; p < 2; ++p) {
      std::vector<float> rows(n * kWidths[p]);
      for (int64_t r = 0; r < n; ++r) rows[(r + 1) * kWidths[p] - 1] = lengths[p][r];
      buffer->write(ctx, p, Guarded(ctx, DType::kF32, {n, kWidths[p]}, rows));
    }
    return watch.arrived(ctx, *buffer);
  }

  std::vector<float> held(int64_t place) {  // lengths, in order
    const int64_t n = buffer->held();
    std::vector<float> lengths;
    for (int64_t done = 0; done < n; done += 4) {
      const int64_t rows = std::min<int64_t>(4, n - done);
      buffer->draw(ctx, rows);
      Guarded x(ctx, DType::kF32, {rows, kWidths[place]});
      buffer->gather(ctx, place, x, 1);
      const auto values = x.read();
      for (int64_t r = 0; r < rows; ++r) lengths.push_back(values[(r + 1) * kWidths[place] - 1]);
    }
    return lengths;
  }
};

// The first rows are measured by their median, which one among a few does not move; later ones by the mean of those
// that were no outliers.
TEST_P(OutlierWatchTest, CountsWhatIsFarLongerThanTheMean) {
  Watched w(ctx, 0);
  EXPECT_FALSE(w.fill({{1, 3, 0, 2, 1e6}, {1, 1, 7, 1, 1}}));
  EXPECT_FALSE(w.fill({{2, 1.9e4, 2.1e4, 3e4}, {1, 2, 2, 1}}));
  EXPECT_FALSE(w.watch.finish());
  const OutlierWatch::Seen &first = w.watch.seen()[0], &second = w.watch.seen()[1];
  EXPECT_EQ(first.outliers, 3);
  EXPECT_EQ(first.rows, 5);  // 1, 3, 2, and 2 and 19,000, which is 9,500 times the 2 of the three before
  EXPECT_DOUBLE_EQ(first.norms, 8 + 1.9e4);
  EXPECT_DOUBLE_EQ(first.longest, 1e6 / 3);  // the median is 3
  EXPECT_EQ(second.outliers, 0);
  EXPECT_EQ(second.rows, 8);
  EXPECT_EQ(first.dropped + second.dropped, 0);
  EXPECT_EQ(w.buffer->held(), 8);
}

// A row that is too long at one place goes from both: they are of one token. The others keep their order.
TEST_P(OutlierWatchTest, DropsWhatIsTooLongAtAnyPlace) {
  Watched w(ctx, 10);
  w.fill({{1, 1, 50, 1, 0, 1}, {2, 30, 2, 2, 2, 1}});
  EXPECT_EQ(w.buffer->held(), 3);
  w.fill({{1, 11, 9}, {2, 2, 2}});
  EXPECT_EQ(w.watch.seen()[0].dropped, 2);
  EXPECT_EQ(w.watch.seen()[1].dropped, 1);
  EXPECT_EQ(w.watch.seen()[0].outliers, 0);  // none of 1e4 times
  EXPECT_EQ(w.held(0), (std::vector<float>{1, 1, 1, 1, 9}));
}

TEST_P(OutlierWatchTest, SaysWhereNaNIs) {
  for (const float bad : {NAN, INFINITY, -INFINITY, 1e30f}) {  // the last: its square is not finite
    Watched w(ctx, 0);
    EXPECT_FALSE(w.fill({{1, 1, 1}, {1, 1, 1}}));
    auto broken = w.fill({{1, 0, 2}, {1, bad, 2}});  // of a row that is not kept: nothing
    if (!broken) broken = w.watch.finish();
    EXPECT_FALSE(broken);
    broken = w.fill({{1, 1, 2}, {1, 1, bad}});
    if (!broken) broken = w.watch.finish();
    ASSERT_TRUE(broken) << bad;
    EXPECT_EQ(broken->place, 1);
    EXPECT_EQ(broken->row, 2);
  }
}

// Another process goes on counting, and dropping, as this one would.
TEST_P(OutlierWatchTest, GoesOnFromWhatWasSeen) {
  Watched a(ctx, 10), b(ctx, 10);
  a.fill({{1, 1, 50, 1}, {1, 1, 1, 1}});
  b.watch.restore(a.watch.seen());
  for (Watched* w : {&a, &b}) w->fill({{9, 11, 12, 9}, {1, 1, 1, 1}});  // alone, 11 would be no outlier
  EXPECT_EQ(a.watch.seen()[0].dropped, 3);
  EXPECT_EQ(b.watch.seen()[0].dropped, 3);
  EXPECT_EQ(a.watch.seen()[0].norms, b.watch.seen()[0].norms);
  EXPECT_THROW(b.watch.restore({}), Error);
}

}  // namespace
}  // namespace gsae::test
