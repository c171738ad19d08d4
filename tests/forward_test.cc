#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "io/safetensors.h"
#include "kernels/convert.h"
#include "kernels/matmul.h"
#include "model/gemma2.h"
#include "tests/harness.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;

const std::string kGoldens = test_data("forward/");
constexpr std::array kSites{Site::kPre, Site::kAtt, Site::kAttnOut, Site::kMlpIn, Site::kMlp, Site::kRes};

// f32 or bf16 elements, as f32.
std::vector<float> read(Context& ctx, Tensor t) {
  if (t.dtype == DType::kF32) return download<float>(ctx, t);
  std::vector<float> v;
  for (const BF16 b : download<BF16>(ctx, t)) v.push_back(to_float(b));
  return v;
}

// A model with room for B x T tokens.
struct Engine {
  Engine(Device device, const std::string& dir, DType compute, int64_t B, int64_t T)
      : ctx(device),
        gemma(ctx, dir, compute),
        memory(device, plan(gemma, B, T)),
        arena(memory),
        acts(arena, gemma, B, T),
        tokens_memory(device, size_t(B * T) * sizeof(int32_t)),
        nll_memory(device, size_t(B * T) * sizeof(float)) {
    forget();
  }
  void forget() {
    const auto words = static_cast<int64_t>(memory.size() / 4);
    upload(ctx, on_device<int32_t>(memory, {words}), std::vector<int32_t>(words, -1));  // NaN
    acts.rope_is_filled = false;
  }
  static size_t plan(const Gemma2& gemma, int64_t B, int64_t T) {
    Arena counts;
    Gemma2::Activations(counts, gemma, B, T);
    return counts.used();
  }
  template <class T> Tensor on_device(const Buffer& b, std::initializer_list<int64_t> shape) const {
    Tensor t = view(reinterpret_cast<T*>(b.data()), shape);
    t.device = ctx.device();
    return t;
  }

  // The pass over tokens that lie on the host.
  void forward(Tensor host, std::span<const Hook> hooks, Tensor nll = {}, Tensor logits = {}) {
    const auto* ids = host.data<int32_t>();
    Tensor tokens = host;
    if (host.size() <= static_cast<int64_t>(tokens_memory.size() / 4)) {  // more are refused
      tokens = on_device<int32_t>(tokens_memory, {host.dim[0], host.dim[1]});
      upload(ctx, tokens, std::vector<int32_t>(ids, ids + host.size()));
    }
    gemma.forward(ctx, acts, tokens, hooks, nll, logits);
    ctx.synchronize();
  }
  std::vector<float> losses(Tensor host, std::span<const Hook> hooks) {
    const Tensor nll = on_device<float>(nll_memory, {host.dim[0], host.dim[1]});
    forward(host, hooks, nll);
    return download<float>(ctx, nll);
  }

  // A hook that keeps the rows of a site in `got`, under the golden's name.
  Hook keep(Site site, int64_t layer, bool edits = false) {
    return {site, layer, edits, [this, key = fmt::format("{}.{}", name(site), layer)](Context& c, Tensor rows) {
              got[key] = read(c, rows);
            }};
  }

  Context ctx;
  Gemma2 gemma;
  Buffer memory;
  Arena arena;
  Gemma2::Activations acts;
  Buffer tokens_memory, nll_memory;
  std::map<std::string, std::vector<float>> got;
};

struct Golden {
  explicit Golden(const std::string& name)
      : dir(kGoldens + name), file(dir + "/expected.safetensors"), tokens(mapped_view(file.get("tokens"))) {}
  int64_t B() const { return tokens.dim[0]; }
  int64_t T() const { return tokens.dim[1]; }
  std::vector<float> get(const std::string& key) const { return to_f32(file.get(key)); }

  std::string dir;
  SafetensorsFile file;
  Tensor tokens;
};

// Everything the golden holds, from one pass: every site of every layer, logits, nll.
void run_all(Engine& e, const Golden& golden) {
  std::vector<Hook> hooks;
  for (int64_t layer = 0; layer < e.gemma.config().layers; ++layer)
    for (const Site site : kSites) hooks.push_back(e.keep(site, layer));
  const int64_t B = golden.B(), T = golden.T();
  const int64_t vocab = e.gemma.config().vocab;
  const Buffer memory(e.ctx.device(), size_t(B * T * vocab) * sizeof(float));
  const Tensor logits = e.on_device<float>(memory, {B * T, vocab}), losses = e.on_device<float>(e.nll_memory, {B, T});
  e.forward(golden.tokens, hooks, losses, logits);
  e.got["logits"] = download<float>(e.ctx, logits);
  auto nll = download<float>(e.ctx, losses);
  for (int64_t b = B - 1; b >= 0; --b) {
    EXPECT_EQ(nll[b * T + T - 1], 0);
    nll.erase(nll.begin() + b * T + T - 1);  // the golden has none at the last position
  }
  e.got["nll"] = nll;
}

// Each golden on each device.
struct Forward : testing::TestWithParam<std::tuple<const char*, Device>> {
  void SetUp() override { require(device()); }
  std::string golden_name() const { return std::get<0>(GetParam()); }
  Device device() const { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Goldens, Forward,
                         testing::Combine(testing::Values("gqa2_window8", "mqa_caps_bite", "like_2b_bf16"),
                                          testing::ValuesIn(devices())),
                         [](const auto& p) {
                           return std::string(std::get<0>(p.param)) + "_" + name(std::get<1>(p.param));
                         });

// What does not need them all.
struct ForwardOn : testing::TestWithParam<Device> {
  void SetUp() override { require(GetParam()); }
};
ON_DEVICES(ForwardOn);

// Hooks that write what lies on the host.
void put(Context& ctx, Tensor rows, const std::vector<float>& values) {
  if (rows.dtype == DType::kF32) return upload(ctx, rows, values);
  std::vector<BF16> narrow(values.size());
  std::transform(values.begin(), values.end(), narrow.begin(), to_bf16);
  upload(ctx, rows, narrow);
}

// The design's bound: 2e-5 of the tensor's largest magnitude. The goldens are float64, rounded once.
TEST_P(Forward, F32MatchesTransformers) {
  const Golden golden(golden_name());
  Engine e(device(), golden.dir, DType::kF32, golden.B(), golden.T());
  run_all(e, golden);
  double worst_ratio = 0;
  for (const auto& [key, got] : e.got) {
    const auto want = golden.get(key);
    ASSERT_EQ(got.size(), want.size()) << key;
    double largest = 0, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      largest = std::max(largest, std::fabs(double(want[i])));
      const double error = std::fabs(double(got[i]) - want[i]);
      worst = error <= worst ? worst : error;  // keeps a NaN
    }
    EXPECT_LE(worst, 2e-5 * largest) << key;
    worst_ratio = std::max(worst_ratio, worst / largest);
  }
  EXPECT_EQ(e.got.size(), size_t(6 * e.gemma.config().layers + 2));
  RecordProperty("worst_relative_to_largest", fmt::format("{:.2e}", worst_ratio));
  if (std::getenv("GSAE_SHOW_ERRORS")) fmt::print("worst error: {:.2e} of the largest magnitude\n", worst_ratio);
}

// The design's bound: at most twice the root mean square error of transformers in bf16.
TEST_P(Forward, Bf16IsAsGoodAsTransformers) {
  const Golden golden(golden_name());
  Engine e(device(), golden.dir, DType::kBF16, golden.B(), golden.T());
  run_all(e, golden);
  double worst_ratio = 0;
  for (const auto& [key, got] : e.got) {
    const auto want = golden.get(key), naive = golden.get("bf16/" + key);
    double ours = 0, theirs = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      ours += std::pow(double(got[i]) - want[i], 2);
      theirs += std::pow(double(naive[i]) - want[i], 2);
    }
    EXPECT_LE(std::sqrt(ours), 2 * std::sqrt(theirs)) << key;
    worst_ratio = std::max(worst_ratio, std::sqrt(ours / std::max(theirs, 1e-300)));
  }
  if (std::getenv("GSAE_SHOW_ERRORS")) fmt::print("worst error: {:.3f} of the naive one\n", worst_ratio);
}

// sqrt(48) is 6.9282; the published model multiplies by it in bf16: 6.9375. One product, so exact.
TEST_P(ForwardOn, ScaleIsRoundedInBf16Only) {
  const Golden golden("mqa_caps_bite");
  const SafetensorsFile file(golden.dir + "/model.safetensors");
  const auto table = to_f32(file.get("model.embed_tokens.weight"));
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    Engine e(GetParam(), golden.dir, compute, golden.B(), golden.T());
    const Hook hook = e.keep(Site::kPre, 0);
    e.forward(golden.tokens, {&hook, 1});
    const float scale = compute == DType::kF32 ? std::sqrt(48.0f) : 6.9375f;
    // a GPU holds the matrices, the table among them, in the compute type
    const bool narrow = GetParam() == Device::kCuda && compute == DType::kBF16;
    const auto entry = [&](float v) { return narrow ? to_float(to_bf16(v)) : v; };
    std::vector<float> want;
    for (int64_t i = 0; i < golden.tokens.size(); ++i)
      for (int64_t c = 0; c < 48; ++c) want.push_back(entry(table[golden.tokens.data<int32_t>()[i] * 48 + c]) * scale);
    EXPECT_EQ(e.got.at("pre.0"), want);
  }
}

// Exact from here on: the same operations on the same numbers, whatever else is asked of the pass.
TEST_P(Forward, StopsAfterTheLastHookWithTheSameBits) {
  const Golden golden(golden_name());
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    Engine all(device(), golden.dir, compute, golden.B(), golden.T()),
        e(device(), golden.dir, compute, golden.B(), golden.T());
    run_all(all, golden);
    for (int64_t layer = 0; layer < all.gemma.config().layers; ++layer)
      for (const Site site : kSites) {
        e.forget();
        const Hook hook = e.keep(site, layer);
        e.forward(golden.tokens, {&hook, 1});
        const std::string key = fmt::format("{}.{}", name(site), layer);
        EXPECT_EQ(e.got.at(key), all.got.at(key)) << key;
        // What comes after was not computed: it still is the NaN of the start.
        if (site <= Site::kMlpIn && layer == 0) {
          EXPECT_TRUE(std::isnan(read(e.ctx, e.acts.gate_up)[0])) << key;
        }
      }
  }
}

// From the residual stream of an earlier pass alone: nothing else of it is left. A pass that was cut short, with an
// edit behind the cut, is the whole pass with that edit.
TEST_P(Forward, FromALayerOnTheSameBits) {
  const Golden golden(golden_name());
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    Engine all(device(), golden.dir, compute, golden.B(), golden.T()),
        e(device(), golden.dir, compute, golden.B(), golden.T());
    run_all(all, golden);
    const Tensor x = e.acts.part(golden.B(), golden.T()).x;
    const Tensor tokens = e.on_device<int32_t>(e.tokens_memory, {golden.B(), golden.T()});
    const Tensor nll = e.on_device<float>(e.nll_memory, {golden.B(), golden.T()});
    upload(e.ctx, tokens, std::vector(golden.tokens.data<int32_t>(), golden.tokens.data<int32_t>() + tokens.size()));
    const int64_t layers = e.gemma.config().layers;
    for (int64_t first = 0; first < layers; ++first) {
      e.forget();
      e.got.clear();
      put(e.ctx, x, all.got.at(fmt::format("pre.{}", first)));
      std::vector<Hook> hooks;
      for (int64_t layer = first; layer < layers; ++layer)
        for (const Site site : kSites) hooks.push_back(e.keep(site, layer));
      e.gemma.forward_from(e.ctx, first, e.acts, tokens, hooks);
      e.ctx.synchronize();
      EXPECT_EQ(e.got.size(), size_t(6 * (layers - first)));
      for (const auto& [key, values] : e.got) EXPECT_EQ(values, all.got.at(key)) << key << " from layer " << first;

      if (emulated(e.ctx) && first != 1) continue;  // two passes for each edit: one layer's will do
      for (const Site site : {Site::kPre, Site::kAtt, Site::kMlp, Site::kRes}) {
        const Hook half{site, first, true, [](Context& ctx, Tensor rows) {
                          std::vector<float> values = read(ctx, rows);
                          for (float& v : values) v *= 0.5f;
                          put(ctx, rows, values);
                        }};
        put(e.ctx, x, all.got.at(fmt::format("pre.{}", first)));
        e.gemma.forward_from(e.ctx, first, e.acts, tokens, {&half, 1}, nll);
        e.ctx.synchronize();
        EXPECT_EQ(download<float>(e.ctx, nll), all.losses(golden.tokens, {&half, 1})) << name(site) << " " << first;
      }
    }
    const Hook before = e.keep(Site::kRes, 0);
    EXPECT_THROW(e.gemma.forward_from(e.ctx, 1, e.acts, tokens, {&before, 1}), Error);
    EXPECT_THROW(e.gemma.forward_from(e.ctx, layers, e.acts, tokens, {}, nll), Error);
  }
}

// Editing without a change goes another way through the layer (copies in bf16, no fusion).
TEST_P(Forward, AnEditThatChangesNothingGivesTheSameBits) {
  const Golden golden(golden_name());
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    Engine plain(device(), golden.dir, compute, golden.B(), golden.T()),
        edited(device(), golden.dir, compute, golden.B(), golden.T());
    std::vector<Hook> hooks;
    for (int64_t layer = 0; layer < plain.gemma.config().layers; ++layer)
      for (const Site site : kSites) hooks.push_back(edited.keep(site, layer, true));
    EXPECT_EQ(plain.losses(golden.tokens, {}), edited.losses(golden.tokens, hooks));
  }
}

// What an edit must do, from the residual stream's own definition: with `mlp` at zero, a block leaves
// what it had after attention; with `attn_out` at zero too, what came in.
TEST_P(Forward, EditsReachWhatFollows) {
  const Golden golden(golden_name());
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    Engine e(device(), golden.dir, compute, golden.B(), golden.T());
    const auto zero = [](Context& ctx, Tensor rows) { put(ctx, rows, std::vector<float>(rows.size())); };
    std::vector<Hook> hooks{
        {Site::kMlp, 1, true, zero}, e.keep(Site::kPre, 1), e.keep(Site::kAttnOut, 1), e.keep(Site::kRes, 1)};
    e.forward(golden.tokens, hooks);
    std::vector<float> want = e.got.at("pre.1");
    for (size_t i = 0; i < want.size(); ++i) want[i] += e.got.at("attn_out.1")[i];
    EXPECT_EQ(e.got.at("res.1"), want);

    hooks.insert(hooks.begin(), {Site::kAttnOut, 1, true, zero});
    e.forward(golden.tokens, hooks);
    EXPECT_EQ(e.got.at("res.1"), e.got.at("pre.1"));
  }
}

// Replacing a layer's input by the golden's makes everything behind it the golden's, whatever the
// tokens: edits of `res` and `pre` reach the next layer's norm, edits of `att` and `mlp_in` the products.
TEST_P(Forward, SplicedActivationsCarryTheRest) {
  const Golden golden(golden_name());
  std::vector<int32_t> others(golden.tokens.size(), 5);
  const Tensor wrong = view(others.data(), {golden.B(), golden.T()});
  const auto put_golden = [&](const std::string& key) {
    return [values = golden.get(key)](Context& ctx, Tensor rows) { put(ctx, rows, values); };
  };
  const auto expect_golden = [&](Engine& e, const std::string& key) {
    const auto want = golden.get(key);
    double largest = 0;
    for (const float v : want) largest = std::max(largest, std::fabs(double(v)));
    expect_close(e.got.at(key), want, 0, 2e-5 * largest);
  };
  for (const Hook& splice :
       {Hook{Site::kRes, 0, true, put_golden("res.0")}, Hook{Site::kPre, 1, true, put_golden("pre.1")}}) {
    Engine e(device(), golden.dir, DType::kF32, golden.B(), golden.T());
    const std::vector hooks{splice, e.keep(Site::kAtt, 1), e.keep(Site::kRes, 1)};
    e.forward(wrong, hooks);
    expect_golden(e, "att.1");
    expect_golden(e, "res.1");
  }
  Engine e(device(), golden.dir, DType::kF32, golden.B(), golden.T());
  const std::vector hooks{Hook{Site::kAtt, 0, true, put_golden("att.0")}, e.keep(Site::kAttnOut, 0),
                          Hook{Site::kMlpIn, 0, true, put_golden("mlp_in.0")}, e.keep(Site::kMlp, 0)};
  e.forward(wrong, hooks);
  expect_golden(e, "attn_out.0");
  expect_golden(e, "mlp.0");
}

TEST_P(ForwardOn, HooksSeveralAtOneSiteRunInOrder) {
  const Golden golden("gqa2_window8");
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    Engine e(GetParam(), golden.dir, compute, 2, 40);
    std::vector<float> seen;
    const auto set = [&](float v) {
      return Hook{Site::kAtt, 0, true, [&seen, v](Context& ctx, Tensor rows) {
                    EXPECT_EQ(rows.dtype, DType::kF32);
                    seen.push_back(read(ctx, rows)[3]);
                    put(ctx, rows, std::vector<float>(rows.size(), v));
                  }};
    };
    const std::vector hooks{set(1), set(2), Hook{Site::kAtt, 0, false, [&](Context& ctx, Tensor rows) {
                                                   EXPECT_EQ(rows.dtype, compute);
                                                   seen.push_back(read(ctx, rows)[3]);
                                                 }}};
    e.forward(golden.tokens, hooks);
    ASSERT_EQ(seen.size(), 3u);
    EXPECT_EQ(seen[1], 1);
    EXPECT_EQ(seen[2], 2);
  }
}

// A sequence alone, in a smaller part of the memory, gives the bits it gives in a batch; so does its
// beginning: nothing looks ahead.
TEST_P(ForwardOn, SequencesDoNotDependOnTheirCompany) {
  if (GetParam() == Device::kCpu && !cpu::has_bf16_products())
    GTEST_SKIP() << "oneDNN's product for AVX2 sums in an order that follows the shape";
  const Golden golden("gqa2_window8");
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    Engine e(GetParam(), golden.dir, compute, 3, 50);
    const int64_t T = golden.T(), d = e.gemma.config().width;
    const Hook hook = e.keep(Site::kRes, 3);
    const auto run = [&](Tensor tokens) {
      e.forward(tokens, {&hook, 1});
      return e.got.at("res.3");
    };
    const auto both = run(golden.tokens);
    for (int64_t b = 0; b < 2; ++b) {
      const auto alone = run(golden.tokens.rows(b, b + 1));
      EXPECT_EQ(alone, std::vector<float>(both.begin() + b * T * d, both.begin() + (b + 1) * T * d)) << b;
    }
    Tensor beginning = golden.tokens.rows(0, 1);
    beginning.dim[1] = 17;
    EXPECT_EQ(run(beginning), std::vector<float>(both.begin(), both.begin() + 17 * d));
  }
}

TEST_P(ForwardOn, RefusalsSayWhatIsWrong) {
  const Golden golden("gqa2_window8");
  Engine e(GetParam(), golden.dir, DType::kF32, 1, 40);
  const auto message = [&](Tensor tokens, Hook hook) -> std::string {
    try {
      e.forward(tokens, {&hook, 1});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const Tensor one = golden.tokens.rows(0, 1);
  EXPECT_NE(message(one, e.keep(Site::kRes, 4)).find("layers 0 to 3"), std::string::npos);
  EXPECT_NE(message(one, e.keep(Site::kRes, -1)).find("layers 0 to 3"), std::string::npos);
  EXPECT_NE(message(golden.tokens, e.keep(Site::kRes, 0)).find("up to (1, 40)"), std::string::npos);
  std::vector<int32_t> beyond{2, 300};
  EXPECT_NE(message(view(beyond.data(), {1, 2}), e.keep(Site::kRes, 0)).find("token 300"), std::string::npos);
  EXPECT_EQ(message(one, e.keep(Site::kRes, 3)), "");
}

// tests/data/eval/expected.json: the demo model's mean loss on these tokens (transformers, eager, f32),
// to five digits after the point. In bf16 transformers differs from that by 0.0006.
TEST_P(ForwardOn, LossOnTextIsThatOfTheTrainedModel) {
  const int64_t B = 32, T = 256;
  std::vector<int32_t> tokens(B * T);
  std::ifstream file(test_data("eval/tokens.npy"), std::ios::binary);
  file.seekg(-static_cast<std::streamoff>(tokens.size() * 4), std::ios::end);  // behind the header
  file.read(reinterpret_cast<char*>(tokens.data()), static_cast<std::streamsize>(tokens.size() * 4));
  ASSERT_TRUE(file.good());
  if (GetParam() == Device::kCuda && cuda_backend() == CudaBackend::kEmulated)
    GTEST_SKIP() << "too many tokens for the emulation";
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    Engine e(GetParam(), demo_data("model"), compute, B, T);
    double sum = 0;
    for (const float v : e.losses(view(tokens.data(), {B, T}), {})) sum += v;
    EXPECT_NEAR(sum / (B * (T - 1)), 2.66841, compute == DType::kF32 ? 1.5e-5 : 2 * 6e-4);
    if (std::getenv("GSAE_SHOW_ERRORS")) fmt::print("{}: {:.6f}\n", name(compute), sum / (B * (T - 1)));
  }
}

// The demo model on both backends: what only the order of sums tells apart in f32, and in bf16 twice what bf16 itself
// is off (both round, and not alike: a GPU's products leave bf16 for attention and GeGLU).
TEST(ForwardBackends, Agree) {
  if (!available(Device::kCuda)) GTEST_SKIP() << why_unavailable(Device::kCuda);
  const std::string dir = demo_data("model");
  const int64_t B = 2, T = 80;  // beyond the window of 64
  std::vector<int32_t> tokens(B * T);
  for (int64_t i = 0; i < B * T; ++i) tokens[i] = i % T == 0 ? 2 : static_cast<int32_t>(3 + i * 7919 % 4000);
  const auto run = [&](Device device, DType compute) {
    Engine e(device, dir, compute, B, T);
    std::vector<Hook> hooks;
    for (const Site site : {Site::kAtt, Site::kMlp, Site::kRes}) hooks.push_back(e.keep(site, 5));
    e.got["nll"] = e.losses(view(tokens.data(), {B, T}), hooks);
    return e.got;
  };
  const auto exact = run(Device::kCpu, DType::kF32);
  const auto error = [&](const std::map<std::string, std::vector<float>>& got, const std::string& key) {
    double sum = 0, largest = 0, worst = 0;
    for (size_t i = 0; i < exact.at(key).size(); ++i) {
      const double by = double(got.at(key)[i]) - exact.at(key)[i];
      sum += by * by;
      worst = std::fabs(by) <= worst ? worst : std::fabs(by);
      largest = std::max(largest, std::fabs(double(exact.at(key)[i])));
    }
    return std::pair(worst / largest, std::sqrt(sum / double(exact.at(key).size())));
  };
  const auto cuda = run(Device::kCuda, DType::kF32), narrow = run(Device::kCuda, DType::kBF16),
             narrow_cpu = run(Device::kCpu, DType::kBF16);
  for (const auto& [key, values] : exact) {
    EXPECT_LE(error(cuda, key).first, 2 * 2e-5) << key;
    EXPECT_LE(error(narrow, key).second, 2 * error(narrow_cpu, key).second) << key;
  }
}

}  // namespace
}  // namespace gsae::test
