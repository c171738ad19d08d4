#include "model/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "io/json.h"
#include "io/safetensors.h"
#include "tests/files.h"
#include "tests/harness.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

constexpr std::array kSites{Site::kPre, Site::kAtt, Site::kAttnOut, Site::kMlpIn, Site::kMlp, Site::kRes};

struct Golden {
  explicit Golden(const std::string& name)
      : dir(test_data("forward/") + name),
        file(dir + "/expected.safetensors"),
        tokens(mapped_view(file.get("tokens"))) {}
  int64_t T() const { return tokens.dim[1]; }
  std::vector<int32_t> sequence(int64_t b) const {
    const int32_t* t = tokens.data<int32_t>() + b * T();
    return {t, t + T()};
  }
  // The rows of one sequence.
  std::vector<float> get(const std::string& key, int64_t b) const {
    const auto all = to_f32(file.get(key));
    const auto size = static_cast<int64_t>(all.size()) / tokens.dim[0];
    return {all.begin() + b * size, all.begin() + (b + 1) * size};
  }

  std::string dir;
  SafetensorsFile file;
  Tensor tokens;  // (B, T)
};

struct Engine {
  Engine(Device device, const std::string& dir, DType compute, int64_t sequences, int64_t length, int64_t most)
      : ctx(device),
        gemma(ctx, dir, compute),
        memory(device, plan(gemma, sequences, length, most)),
        arena(memory),
        generator(arena, gemma, sequences, length, most) {
    const auto words = static_cast<int64_t>(memory.size() / 4);  // NaN, wherever nothing is written
    Tensor all = view(reinterpret_cast<int32_t*>(memory.data()), {words});
    all.device = device;
    upload(ctx, all, std::vector<int32_t>(words, -1));
  }
  static size_t plan(const Gemma2& gemma, int64_t sequences, int64_t length, int64_t most) {
    Arena counts;
    Generator(counts, gemma, sequences, length, most);
    return counts.used();
  }

  Context ctx;
  Gemma2 gemma;
  Buffer memory;
  Arena arena;
  Generator generator;
};

// The logits behind the prompt's pieces and behind each further token of the sequence.
struct Steps {
  std::vector<int64_t> positions;  // of the last token that each is behind
  std::vector<float> logits;       // (positions, V)
};
Steps run(Engine& e, const std::vector<int32_t>& ids, const std::vector<int64_t>& pieces) {
  Steps s;
  const auto keep = [&] {
    const auto l = e.generator.logits();
    s.logits.insert(s.logits.end(), l.begin(), l.end());
    s.positions.push_back(e.generator.length() - 1);
  };
  const std::span<const int32_t> all(ids);
  size_t at = 0;
  for (const int64_t n : pieces) {
    e.generator.add(e.ctx, all.subspan(at, size_t(n)));
    at += size_t(n);
    keep();
  }
  for (; at < ids.size(); ++at) {
    e.generator.next(e.ctx, all.subspan(at, 1));
    keep();
  }
  e.ctx.synchronize();
  return s;
}

std::vector<float> rows(const std::vector<float>& all, const std::vector<int64_t>& which, int64_t width) {
  std::vector<float> some;
  for (const int64_t r : which) some.insert(some.end(), all.begin() + r * width, all.begin() + (r + 1) * width);
  return some;
}

using Parameters = std::tuple<const char*, Device>;
struct Generate : testing::TestWithParam<Parameters> {
  void SetUp() override { require(device); }
  Device device = std::get<1>(GetParam());
  Golden golden{std::get<0>(GetParam())};
};
// Their windows are 8, 5 and 16, their sequences 40, 33 and 24 long.
INSTANTIATE_TEST_SUITE_P(Goldens, Generate,
                         testing::Combine(testing::Values("gqa2_window8", "mqa_caps_bite", "like_2b_bf16"),
                                          testing::ValuesIn(devices())),
                         [](const auto& p) {
                           return std::string(std::get<0>(p.param)) + "_" + name(std::get<1>(p.param));
                         });

// One token at a time from the first, behind a beginning, behind pieces; far beyond the windows.
const std::vector<std::vector<int64_t>> kPieces{{1}, {3}, {20}, {4, 7, 1, 10}};

// The design's bound: 2e-5 of the tensor's largest magnitude, as for the pass over everything at once.
TEST_P(Generate, F32LogitsAreThoseOfTheWhole) {
  double worst_ratio = 0;
  for (int64_t b = 0; b < golden.tokens.dim[0]; ++b) {
    const auto want = golden.get("logits", b);
    double largest = 0;
    for (const float v : want) largest = std::max(largest, std::fabs(double(v)));
    for (const auto& pieces : kPieces) {
      Engine e(device, golden.dir, DType::kF32, 1, golden.T(), *std::max_element(pieces.begin(), pieces.end()));
      const Steps s = run(e, golden.sequence(b), pieces);
      EXPECT_EQ(s.positions.back(), golden.T() - 1);
      const auto there = rows(want, s.positions, e.gemma.config().vocab);
      expect_close(s.logits, there, 0, 2e-5 * largest);
      for (size_t i = 0; i < there.size(); ++i)
        worst_ratio = std::max(worst_ratio, std::fabs(double(s.logits[i]) - there[i]) / largest);
    }
  }
  if (std::getenv("GSAE_SHOW_ERRORS")) fmt::print("worst error: {:.2e} of the largest magnitude\n", worst_ratio);
}

// The design's bound: at most twice the root mean square error of transformers in bf16.
TEST_P(Generate, Bf16LogitsAreAsGoodAsTransformers) {
  const auto want = golden.get("logits", 0), naive = golden.get("bf16/logits", 0);
  for (const auto& pieces : kPieces) {
    Engine e(device, golden.dir, DType::kBF16, 1, golden.T(), 20);
    const Steps s = run(e, golden.sequence(0), pieces);
    const int64_t vocab = e.gemma.config().vocab;
    const auto exact = rows(want, s.positions, vocab), theirs = rows(naive, s.positions, vocab);
    double ours = 0, allowed = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      ours += std::pow(double(s.logits[i]) - exact[i], 2);
      allowed += std::pow(double(theirs[i]) - exact[i], 2);
    }
    EXPECT_LE(std::sqrt(ours), 2 * std::sqrt(allowed));
  }
}

// Hooks see the rows of their positions, at every site of every layer, and what they leave there is gone on with.
TEST_P(Generate, HooksSeeTheRowsOfTheirPositions) {
  std::map<std::string, std::vector<float>> got;
  Engine e(device, golden.dir, DType::kF32, 1, golden.T(), 9);
  std::vector<Hook> hooks;
  for (int64_t layer = 0; layer < e.gemma.config().layers; ++layer)
    for (const Site site : kSites)
      hooks.push_back(
          {site, layer, layer == 1, [&, key = fmt::format("{}.{}", name(site), layer)](Context& c, Tensor r) {
             if (e.generator.start() + r.dim[0] > 20) return;  // a Graph may replay: hooks run no more
             const auto values = download<float>(c, r);
             got[key].insert(got[key].end(), values.begin(), values.end());
           }});
  e.generator.set_hooks(hooks);
  const auto ids = golden.sequence(0);
  for (const auto& piece : {std::pair<size_t, size_t>{0, 9}, {9, 4}, {13, 7}})
    e.generator.add(e.ctx, std::span(ids).subspan(piece.first, piece.second));
  e.ctx.synchronize();
  EXPECT_EQ(got.size(), hooks.size());
  for (const auto& [key, values] : got) {
    auto want = golden.get(key, 0);
    want.resize(want.size() / golden.T() * 20);
    double largest = 0;
    for (const float v : want) largest = std::max(largest, std::fabs(double(v)));
    expect_close(values, want, 0, 2e-5 * largest);
  }
}

struct GenerateOn : OnDevice {};
ON_DEVICES(GenerateOn);

// What transformers goes on with, greedily (tests/data/make_generate.py): no two logits on the way were nearer than
// 1e-3.
TEST_P(GenerateOn, GoesOnAsTransformersDoes) {
  const auto cases = read_json(test_data("generate/random.json"));
  EXPECT_GE(cases.size(), 6u);
  for (const auto& c : cases) {
    const std::string model = c.at("model");
    const std::vector<int32_t> prompt = c.at("prompt_ids"), want = c.at("ids");
    const std::vector<double> logprobs = c.at("logprobs");
    Engine e(GetParam(), test_data("forward/") + model, DType::kF32, 1, int64_t(prompt.size() + want.size()), 64);
    e.generator.add(e.ctx, prompt);
    std::vector<int32_t> got;
    for (size_t i = 0; i < want.size(); ++i) {
      const auto l = e.generator.logits();
      const auto best = std::max_element(l.begin(), l.end());
      double sum = 0;
      for (const float v : l) sum += std::exp(double(v) - *best);
      EXPECT_NEAR(-std::log(sum), logprobs[i], 2e-4) << model << " token " << i;
      got.push_back(int32_t(best - l.begin()));
      e.generator.next(e.ctx, std::span(&got.back(), 1));
    }
    e.ctx.synchronize();
    EXPECT_EQ(got, want) << model << " from " << prompt.size() << " tokens";
  }
}

// Sequences that have a beginning in common and then part: each as if alone.
TEST_P(GenerateOn, SequencesPartAfterTheirPrompt) {
  const Golden golden("gqa2_window8");
  const auto first = golden.sequence(0), second = golden.sequence(1);
  constexpr int64_t kPrompt = 12, kLength = 30;
  std::vector<std::vector<int32_t>> whole(3, std::vector(first.begin(), first.begin() + kPrompt));
  for (int64_t i = kPrompt; i < kLength; ++i) {
    whole[0].push_back(first[i]);
    whole[1].push_back(second[i]);
    whole[2].push_back(first[kLength - i]);
  }
  Engine e(GetParam(), golden.dir, DType::kF32, 3, kLength, 8);
  const int64_t vocab = e.gemma.config().vocab;
  for (int64_t at = 0; at < kPrompt; at += 6) e.generator.add(e.ctx, std::span(first).subspan(at, 6));
  e.generator.fork(e.ctx);
  std::vector<float> together;
  for (int64_t i = kPrompt; i < kLength; ++i) {
    e.generator.next(e.ctx, std::vector{whole[0][i], whole[1][i], whole[2][i]});
    const auto l = e.generator.logits();
    ASSERT_EQ(int64_t(l.size()), 3 * vocab);
    together.insert(together.end(), l.begin(), l.end());
  }
  for (int64_t b = 0; b < 3; ++b) {
    Engine alone(GetParam(), golden.dir, DType::kF32, 1, kLength, kLength);
    alone.generator.add(alone.ctx, whole[b]);
    const auto want = alone.generator.logits();
    const auto last = together.end() - (3 - b) * vocab;
    double largest = 0;
    for (const float v : want) largest = std::max(largest, std::fabs(double(v)));
    expect_close(std::vector(last, last + vocab), want, 0, 2 * 2e-5 * largest);
  }
}

TEST_P(GenerateOn, WhatDoesNotFitIsAnError) {
  const Golden golden("gqa2_window8");
  const auto ids = golden.sequence(0);
  Engine e(GetParam(), golden.dir, DType::kF32, 2, 10, 4);
  EXPECT_ERROR(e.generator.add(e.ctx, std::span(ids).first(5)), "4 in a pass");
  EXPECT_ERROR(e.generator.next(e.ctx, std::span(ids).first(2)), "0 positions");
  e.generator.add(e.ctx, std::span(ids).first(4));
  EXPECT_ERROR(e.generator.next(e.ctx, std::span(ids).first(1)), "1 tokens for 2 sequences");
  for (int i = 0; i < 6; ++i) e.generator.next(e.ctx, std::span(ids).first(2));
  EXPECT_ERROR(e.generator.next(e.ctx, std::span(ids).first(2)), "1 more do not fit behind 10");
  e.ctx.synchronize();
}

}  // namespace
}  // namespace gsae::test
