// The memory plan: against numbers worked out by hand; what is chosen; what is proposed where it does not fit; and how
// a suite is cut into passes.
#include "tools/memory_plan.h"

#include <zlib.h>
#include <zstd.h>

#include <numeric>

#include "io/stored_size.h"
#include "tests/files.h"
#include "tools/options.h"
#include "tools/passes.h"
#include "tools/remedies.h"

namespace gsae::test {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30, kMiB = int64_t{1} << 20;

int64_t part(const MemoryPlan& plan, const std::string& what) {
  for (const MemoryPlan::Part& p : plan.parts())
    if (p.what == what) return p.bytes;
  ADD_FAILURE() << "no " << what << " in:\n" << plan.table();
  return 0;
}

// A 2B's run on a GPU with so much memory.
ModelRun run_2b(int64_t available) {
  return {.machine = MemoryPlan(Device::kCuda, available, "a GPU"),
          .config = named_shape("2b"),
          .tokens = 500'000'000,
          .evaluates = true};
}

RunChoices suite(const std::vector<int64_t>& layers, const std::vector<Site>& sites,
                 const std::vector<int64_t>& widths) {
  RunChoices c{.saes = {}};
  for (const int64_t layer : layers)
    for (const Site site : sites)
      for (const int64_t F : widths) c.saes.push_back({{site, layer}, site == Site::kAtt ? 2048 : 2304, F, 80});
  return c;
}

std::vector<int64_t> all_layers() {
  std::vector<int64_t> layers(26);
  std::iota(layers.begin(), layers.end(), int64_t{0});
  return layers;
}

TEST(MemoryPlan, AddsUpWhatIsOnTheDevice) {
  MemoryPlan cpu(Device::kCpu, 100, "memory"), gpu(Device::kCuda, 100, "cuda:3");
  for (MemoryPlan* plan : {&cpu, &gpu}) plan->add("a", 60), plan->add_host("b", 50, "a note");
  EXPECT_EQ(cpu.total(), 110);
  EXPECT_FALSE(cpu.fits());
  EXPECT_EQ(gpu.total(), 60);
  EXPECT_EQ(gpu.host_total(), 50);
  EXPECT_TRUE(gpu.fits());
  EXPECT_NE(gpu.table().find("cuda:3"), std::string::npos);
  EXPECT_NE(gpu.table().find("beside it, in the host's memory\n  b "), std::string::npos);
  gpu.check();
  EXPECT_THROW(cpu.check(), Error);
}

// 10 bytes a weight (f32 parameter and second moment, bf16 copy), 2 d F weights; per latent 2 * 2 f32 of b_enc and
// theta, i64 stamp, i32 fired, two i64 counters; b_dec and the log are some (d).
TEST(PlanSuite, OneSaeOfAMillionLatents) {
  const int64_t d = 2304, F = 1 << 20;
  const RunPlan plan = model_planner(run_2b(139 * kGiB))(suite({20}, {Site::kRes}, {F}));
  const int64_t weights = 10 * 2 * d * F, state = part(plan.memory, "SAE parameters and optimizer");
  EXPECT_GE(state, weights);
  EXPECT_LE(state, weights + F * (16 + 8 + 4 + 16) + (1 << 18));
  EXPECT_EQ(plan.suite.rows, 1'000'000);
  // 26 layers of 77.9M weights and the embedding, in bf16; norms in f32
  const int64_t layer = 2304 * (2048 + 2 * 1024) + 2048 * 2304 + 3 * 2304 * 9216;
  EXPECT_NEAR(double(part(plan.memory, "model weights")), 2.0 * (26 * layer + 256000.0 * 2304),
              4 * (26 * 4 + 1) * 2304.0);
  EXPECT_EQ(part(plan.memory, "activation buffer") / 1000000, 2304 * 2);
  // docs/design.md, section 7: 55 GiB, which leaves out the forward pass and the step
  EXPECT_LE(state + part(plan.memory, "model weights") + part(plan.memory, "activation buffer"), 55 * kGiB);
}

// All of Gemma Scope's places at once within the budget of docs/design.md.
TEST(PlanSuite, SeventyEightSaesFitInTheBudget) {
  const RunChoices c = suite(all_layers(), {Site::kAtt, Site::kMlp, Site::kRes}, {1 << 14});
  ASSERT_EQ(c.saes.size(), 78);
  const RunPlan plan = model_planner(run_2b(105 * kGiB))(c);
  EXPECT_TRUE(plan.memory.fits()) << plan.memory.table();
  EXPECT_GE(plan.suite.rows, 65536);  // 16 batches
  const int64_t weights = 26 * (2 * 2304 + 2048) * 2 * (int64_t{1} << 14);
  EXPECT_NEAR(double(part(plan.memory, "SAE parameters and optimizer")) / (10.0 * double(weights)), 1, 0.002);
}

// States and buffers add up, the workspace is one, and a place has one buffer.
TEST(PlanSuite, WhatIsSharedIsCountedOnce) {
  const Planner plan = model_planner(run_2b(139 * kGiB));
  const MemoryPlan one = plan(suite({3}, {Site::kRes}, {1 << 14})).memory;
  const MemoryPlan wide = plan(suite({3}, {Site::kRes}, {1 << 16})).memory;
  const MemoryPlan two = plan(suite({3}, {Site::kRes}, {1 << 14, 1 << 16})).memory;
  const MemoryPlan places = plan(suite({3, 4}, {Site::kRes}, {1 << 14})).memory;
  const auto sum = [&](const char* what) { return part(one, what) + part(wide, what); };
  EXPECT_EQ(part(two, "SAE parameters and optimizer"), sum("SAE parameters and optimizer"));
  EXPECT_EQ(part(two, "SAE step workspace"),
            std::max(part(one, "SAE step workspace"), part(wide, "SAE step workspace")));
  EXPECT_EQ(part(two, "activation buffer"), part(one, "activation buffer"));
  EXPECT_EQ(part(places, "SAE parameters and optimizer"), 2 * part(one, "SAE parameters and optimizer"));
  EXPECT_NEAR(double(part(places, "activation buffer")), 2.0 * double(part(one, "activation buffer")), 1 << 20);
}

TEST(PlanSuite, TheBufferIsAsLargeAsFits) {
  const RunChoices c = suite({20}, {Site::kRes}, {1 << 14});
  const RunPlan wanted = model_planner(run_2b(139 * kGiB))(c);
  const RunPlan chosen = model_planner(run_2b(wanted.memory.total() - 2 * kGiB))(c);
  EXPECT_TRUE(chosen.memory.fits());
  EXPECT_LT(chosen.suite.rows, wanted.suite.rows);
  EXPECT_NEAR(double(chosen.memory.left()), double(chosen.memory.available()) / 32, 4608.0);  // a row
  ModelRun brief = run_2b(139 * kGiB);
  brief.tokens = 800'000;
  EXPECT_EQ(model_planner(brief)(c).suite.rows, 100'000);  // an eighth
}

TEST(PlanSuite, AnImpossibleBufferIsAUsageError) {
  RunChoices c = suite({20}, {Site::kRes}, {1 << 14});
  c.buffer = 8 * 1024 + 4096 - 1;
  EXPECT_THROW(model_planner(run_2b(139 * kGiB))(c), UsageError);
  c.buffer += 1;
  EXPECT_EQ(model_planner(run_2b(139 * kGiB))(c).suite.rows, c.buffer);
}

TEST(PlanRun, TheForwardPassIsCutUntilItFits) {
  const RunChoices c = suite({20}, {Site::kRes}, {1 << 14});
  RunChoices least = c;
  least.model_batch = 1;
  least.buffer = 65536;
  const int64_t needed = model_planner(run_2b(139 * kGiB))(least).memory.total();
  const RunPlan plan = model_planner(run_2b(needed))(c);
  EXPECT_TRUE(plan.memory.fits()) << plan.memory.table();
  EXPECT_EQ(plan.contexts, 1);
  EXPECT_NE(plan.memory.table().find("chosen to fit: 1 contexts of 1024"), std::string::npos) << plan.memory.table();
}

// On the CPU only what is read of a checkpoint is in memory.
TEST(PlanRun, TheCpuReadsLayersUpToTheLast) {
  ModelRun run = run_2b(0);
  run.machine = MemoryPlan(Device::kCpu, 100 * kGiB, "memory");
  run.evaluates = false;
  const Planner plan = model_planner(run);
  const int64_t shallow = part(plan(suite({0}, {Site::kRes}, {1 << 14})).memory, "model weights");
  const int64_t deep = part(plan(suite({2}, {Site::kRes}, {1 << 14})).memory, "model weights");
  const int64_t layer = 2304 * (2048 + 2 * 1024) + 2048 * 2304 + 3 * 2304 * 9216;
  EXPECT_NEAR(double(deep - shallow) / (2.0 * 2 * double(layer)), 1, 0.001);
  EXPECT_NEAR(double(shallow), 2.0 * (256000.0 * 2304 + double(layer)), 4 * 4 * 2304.0);
}

// What is proposed is enough, alone, and of the right order.
TEST(CheapestWays, EachIsEnoughAndTheCheapestIsFirst) {
  RunChoices c = suite({10, 20}, {Site::kRes}, {1 << 16});
  c.buffer = 1'000'000, c.model_batch = 16, c.precision = DType::kF32;
  const ModelRun roomy = run_2b(139 * kGiB);
  const int64_t needed = model_planner(roomy)(c).memory.total();
  const Planner plan = model_planner(run_2b(needed - kGiB / 2));
  const std::vector<Remedy> ways = cheapest_ways(c, plan, 8);
  std::string changes;
  for (const Remedy& way : ways) {
    changes += way.change + ";";
    EXPECT_GE(way.saves, kGiB / 2) << way.change;
  }
  const auto at = [&](const char* what) { return changes.find(what); };
  EXPECT_LT(at("--buffer "), at("--model-batch "));
  EXPECT_LT(at("--model-batch "), at("--precision bf16"));
  EXPECT_LT(at("--precision bf16"), at("--passes 2"));
  EXPECT_LT(at("--passes 2"), at("--width 32k"));
  EXPECT_NE(at("--width 32k"), std::string::npos) << changes;
  EXPECT_EQ(cheapest_ways(c, plan).size(), 3);
  // half a GiB less of two places' rows of 9 KiB each, to two digits
  EXPECT_EQ(ways[0].change, "--buffer 970k") << changes;
  c.buffer = 970'000;
  EXPECT_TRUE(plan(c).memory.fits());
  c.buffer = 980'000;
  EXPECT_FALSE(plan(c).memory.fits());
}

TEST(CheapestWays, NoneThatIsNot) {
  const RunChoices c = suite({20}, {Site::kRes}, {1 << 14});
  const Planner plan = model_planner(run_2b(4 * kGiB));  // less than the model
  EXPECT_TRUE(cheapest_ways(c, plan).empty());
  EXPECT_NE(describe_ways({}, plan(c).memory).find("more memory"), std::string::npos);
}

// SAEs of a unit's size by width; so much fits into a pass.
Fits holds(const std::vector<SaeShape>& saes, int64_t latents) {
  return [&saes, latents](const std::vector<int>& part) {
    int64_t sum = 0;
    for (const int i : part) sum += saes[size_t(i)].latents;
    return sum <= latents;
  };
}

using Parts = std::vector<std::vector<int>>;

TEST(Passes, AsFewAsItTakesAndPlacesStayTogether) {
  std::vector<SaeShape> saes;
  for (int layer = 0; layer < 4; ++layer)
    for (const int64_t F : {1, 3}) saes.push_back({{Site::kRes, layer}, 1, F, 1});
  EXPECT_EQ(split_into_passes(saes, holds(saes, 16)), (Parts{{0, 1, 2, 3, 4, 5, 6, 7}}));
  EXPECT_EQ(split_into_passes(saes, holds(saes, 9)), (Parts{{0, 1, 2, 3}, {4, 5, 6, 7}}));
  EXPECT_EQ(split_into_passes(saes, holds(saes, 4)), (Parts{{0, 1}, {2, 3}, {4, 5}, {6, 7}}));
  EXPECT_TRUE(split_into_passes(saes, holds(saes, 2)).empty());  // one of 3 never fits
}

TEST(Passes, APlaceIsCutWhereThatSavesOne) {
  std::vector<SaeShape> saes;  // three places of 2 + 2: places of 4 into 6 make three passes, SAEs of 2 make two
  for (int layer = 0; layer < 3; ++layer)
    for (int i = 0; i < 2; ++i) saes.push_back({{Site::kRes, layer}, 1, 2, 1.0 + i});
  EXPECT_EQ(split_into_passes(saes, holds(saes, 6)), (Parts{{0, 1, 2}, {3, 4, 5}}));
}

TEST(Passes, LargeAndSmallOnesShare) {
  std::vector<SaeShape> saes;  // as neighbours 5 | 4 + 2 | 3; packed 5 + 2 | 4 + 3
  for (const int64_t F : {5, 4, 2, 3}) saes.push_back({{Site::kRes, int64_t(saes.size())}, 1, F, 1});
  const Parts parts = split_into_passes(saes, holds(saes, 7));
  EXPECT_EQ(parts.size(), 2);
  std::vector<int> all;
  for (const auto& p : parts) all.insert(all.end(), p.begin(), p.end());
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, (std::vector<int>{0, 1, 2, 3}));
}

// Places of so many latents each, a layer a list.
std::vector<SaeShape> by_layer(const std::vector<std::vector<int64_t>>& widths) {
  std::vector<SaeShape> saes;
  for (size_t layer = 0; layer < widths.size(); ++layer)
    for (const int64_t F : widths[layer]) saes.push_back({{Site::kRes, int64_t(layer)}, 1, F, 1});
  return saes;
}

TEST(Passes, PackedPlacesStayTogetherWhereThatIsEnough) {
  const auto saes = by_layer({{3, 2}, {3, 1}, {1, 1}, {2, 1}});  // 5 + 2 | 4 + 3
  EXPECT_EQ(split_into_passes(saes, holds(saes, 7)), (Parts{{0, 1, 4, 5}, {2, 3, 6, 7}}));
}

TEST(Passes, SaesArePackedAloneWhereNothingElseIsEnough) {
  const auto saes = by_layer({{3, 3}, {4}, {4}});  // 6 | 4 | 4, but 4 + 3 | 4 + 3
  EXPECT_EQ(split_into_passes(saes, holds(saes, 7)).size(), 2);
}

TEST(Passes, NeighboursComeFirst) {
  const auto saes = by_layer({{2}, {5}, {6}, {1}});
  EXPECT_EQ(split_into_passes(saes, holds(saes, 7)), (Parts{{0, 1}, {2, 3}}));
}

// Sizes from headers alone.
TEST(StoredSize, OfEachKindOfFile) {
  const TempFolder dir;
  const std::string text(100'000, 'x');
  write_bytes(dir / "a.txt", text);
  EXPECT_EQ(stored_text_bytes(dir / "a.txt", kMiB), 100'000);
  EXPECT_EQ(stored_text_bytes(dir / "a.txt", 1000), 1000);
  EXPECT_EQ(stored_text_bytes("-", kMiB), kMiB);
  write_bytes(dir / "t.bin", std::string(600, 0));
  EXPECT_EQ(stored_text_bytes(dir / "t.bin", kMiB), 1200);

  std::string frame(ZSTD_compressBound(text.size()), 0);
  frame.resize(ZSTD_compress(frame.data(), frame.size(), text.data(), text.size(), 1));
  write_bytes(dir / "a.jsonl.zst", frame + frame);
  EXPECT_EQ(stored_text_bytes(dir / "a.jsonl.zst", kMiB), 200'000);
  EXPECT_EQ(stored_text_bytes(dir / "a.jsonl.zst", 150'000), 150'000);
  write_bytes(dir / "b.txt.zst", "no Zstandard data");
  EXPECT_EQ(stored_text_bytes(dir / "b.txt.zst", kMiB), kMiB);

  const auto gzip = [&](const std::string& path, const char* mode, size_t bytes) {
    gzFile file = gzopen(path.c_str(), mode);
    gzwrite(file, text.data(), static_cast<unsigned>(bytes));
    gzclose(file);
  };
  gzip(dir / "a.txt.gz", "wb", text.size());
  EXPECT_EQ(stored_text_bytes(dir / "a.txt.gz", kMiB), 100'000);
  gzip(dir / "a.txt.gz", "ab", 20);  // a second member, which says 20
  EXPECT_EQ(stored_text_bytes(dir / "a.txt.gz", kMiB), kMiB);
  EXPECT_THROW(stored_text_bytes(dir / "none.txt", kMiB), Error);
}

}  // namespace
}  // namespace gsae::test
