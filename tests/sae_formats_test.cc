// Formats of other tools: what their packages wrote (tests/data/make_formats.py, make_saelens.py), and ours read back.
#include <fmt/format.h>

#include <cmath>

#include "io/json.h"
#include "io/output_file.h"
#include "io/safetensors.h"
#include "io/torch_zip.h"
#include "io/zip_writer.h"
#include "sae/inference.h"
#include "sae/sae_file.h"
#include "sae/unit_decoder.h"
#include "tests/files.h"
#include "tests/paths.h"
#include "tests/trainer_fixture.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;
const std::string kData = test_data("formats/");
const std::string kScope2 = kData + "gemma_scope_2/resid_post/layer_7_width_40_l0_small";

struct Foreign {
  std::string folder, format, model, site;
  int64_t layer;
};
const std::vector<Foreign> kForeign{
    {kData + "saelens_tiny", "saelens", "gemma-2-2b", "mlp", 7},
    {kData + "dictionary_learning", "dictionary-learning", "google/gemma-2-2b", "res", 7},
    {kData + "circuit_tracer", "circuit-tracer", "", "", 5},
    {kScope2, "gemma-scope-2", "google/gemma-3-1b-pt", "res", 7}};

double largest(const std::vector<float>& v) {
  double most = 0;
  for (const float x : v) most = std::max(most, std::fabs(double(x)));
  return most;
}

struct SaeFormatsOn : OnDevice {};
ON_DEVICES(SaeFormatsOn);

// f and x_hat as each package computes them in f64: 1e-5 of the largest, a dozen products of f32 each; x_hat sums 20
// latents. Folded into unit rows, f is as many times as large as the rows were long, and x_hat the same.
TEST_P(SaeFormatsOn, ComputeWhatTheirPackagesDo) {
  for (const Foreign& foreign : kForeign) {
    SCOPED_TRACE(foreign.format);
    const auto listed = list_saes(foreign.folder);
    ASSERT_EQ(listed.size(), 1u);
    EXPECT_EQ(listed[0].format, foreign.format);
    LoadedSae sae = load_sae(listed[0]);
    EXPECT_EQ(listed[0].width, sae.params.width());
    EXPECT_EQ(listed[0].latents, sae.params.latents());
    for (const SaeLocation& at : {listed[0].location, sae.location}) {
      EXPECT_EQ(at.model, foreign.model);
      EXPECT_EQ(at.site, foreign.site);
      EXPECT_EQ(at.layer, foreign.layer);
    }
    const SafetensorsFile want(foreign.folder + "/expected.safetensors");
    const auto rows = to_f32(want.get("x")), want_f = to_f32(want.get("f")), want_hat = to_f32(want.get("x_hat"));
    const int64_t d = sae.params.width(), latents = sae.params.latents(), n = int64_t(rows.size()) / d;
    const Guarded x(ctx, DType::kF32, {n, d}, rows);
    for (const bool folded : {false, true}) {
      std::vector<float> norms(static_cast<size_t>(latents), 1);
      if (folded) {
        for (int64_t i = 0; i < latents; ++i) {
          double square = 0;
          for (int64_t c = 0; c < d; ++c) square += std::pow(double(sae.params.W_dec.data<float>()[i * d + c]), 2);
          norms[i] = square > 0 ? float(std::sqrt(square)) : 1;
        }
        const DecoderNorms said = fold_decoder_norms(sae.params);
        EXPECT_EQ(said.zero, foreign.format == "gemma-scope-2" ? 1 : 0);
        EXPECT_EQ(said.folded, foreign.format == "gemma-scope-2" ? 37 : 0);  // of 40; one is zero, two are of norm 1
      }
      std::vector<float> scaled = want_f;
      for (int64_t k = 0; k < n * latents; ++k) scaled[k] *= norms[k % latents];
      Buffer memory;
      const SaeParameters params = on_device(ctx, sae.params, memory);
      Guarded f(ctx, DType::kF32, {n, latents}), x_hat(ctx, DType::kF32, {n, d});
      encode(ctx, f, x, params);
      decode(ctx, x_hat, f, params);
      expect_close(f.read(), scaled, 0, 1e-5 * largest(scaled));
      expect_close(x_hat.read(), want_hat, 0, 1e-5 * largest(want_hat));
    }
  }
}

// Every format that is written gives back the bytes of the parameters; and again through each of the others.
TEST(SaeFormats, RoundTripsAreExact) {
  const TempFolder dir;
  const LoadedSae first = load_sae(list_saes(kData + "dictionary_learning").at(0));
  SaeDescription s;
  s.location = {.model = "google/gemma-2-2b", .site = "att", .layer = 20};
  s.l0 = 20, s.average_l0 = 19.5, s.context = 1024, s.tokens = 5000, s.seed = 7;
  s.density.assign(static_cast<size_t>(first.params.latents()), 0.25f);
  s.density[1] = 0;
  std::string before = kData + "dictionary_learning";
  for (const std::string& format : sae_formats(true)) {
    const LoadedSae from = load_sae(list_saes(before).at(0));
    write_sae_folder(dir / format, from.params, s, format);
    const auto listed = list_saes(dir / format);
    ASSERT_EQ(listed.size(), 1u);
    EXPECT_EQ(listed[0].format, format);
    const LoadedSae back = load_sae(listed[0]);
    for (const SaeLocation& at : {listed[0].location, back.location}) {
      EXPECT_EQ(at.model, "google/gemma-2-2b") << format;
      EXPECT_EQ(at.site, "att") << format;
      EXPECT_EQ(at.layer, 20) << format;
    }
    for (const auto tensor : {&SaeParameters::W_enc, &SaeParameters::W_dec, &SaeParameters::b_enc,
                              &SaeParameters::b_dec, &SaeParameters::threshold}) {
      const Tensor a = first.params.*tensor, b = back.params.*tensor;
      ASSERT_EQ(a.bytes(), b.bytes());
      EXPECT_EQ(std::memcmp(a.ptr, b.ptr, a.bytes()), 0) << format;
    }
    before = dir / format;
  }
  EXPECT_EQ(sae_formats(true).size(), 4u);
  EXPECT_ERROR(write_sae_folder(dir / "x", first.params, s, "gemma-scope-2"), "only read");
  EXPECT_ERROR(write_sae_folder(dir / "x", first.params, s, "onnx"), "circuit-tracer");

  const auto cfg = read_json(dir / "saelens/cfg.json");
  EXPECT_EQ(cfg["architecture"], "jumprelu");
  EXPECT_EQ(cfg["normalize_activations"], "none");
  EXPECT_EQ(cfg["apply_b_dec_to_input"], false);
  EXPECT_EQ(cfg["reshape_activations"], "hook_z");
  EXPECT_EQ(cfg["metadata"]["hook_name"], "blocks.20.attn.hook_z");
  EXPECT_EQ(cfg["metadata"]["model_name"], "google/gemma-2-2b");
  const auto sparsity = to_f32(SafetensorsFile(dir / "saelens/sparsity.safetensors").get("sparsity"));
  EXPECT_NEAR(sparsity[0], std::log10(0.25), 1e-6);
  EXPECT_NEAR(sparsity[1], -10, 1e-6);  // SAELens adds 1e-10
  const auto config = read_json(dir / "dictionary-learning/config.json")["trainer"];
  EXPECT_EQ(config["dict_class"], "JumpReluAutoEncoder");
  EXPECT_EQ(config["trainer_class"], "JumpReluTrainer");
  EXPECT_EQ(config["layer"], 20);
  EXPECT_EQ(config["lm_name"], "google/gemma-2-2b");
  EXPECT_EQ(SafetensorsFile(dir / "circuit-tracer/layer_20.safetensors").get("W_enc").shape,
            (std::vector<int64_t>{40, 12}));
  EXPECT_EQ(read_sae_description(dir / "gemma-scope", 40).density, s.density);

  // And of what is known beside the parameters, what each format has a word for.
  const SaeDescription ours = describe_sae(list_saes(dir / "gemma-scope").at(0)),
                       lens = describe_sae(list_saes(dir / "saelens").at(0)),
                       dictionary = describe_sae(list_saes(dir / "dictionary-learning").at(0)),
                       circuit = describe_sae(list_saes(dir / "circuit-tracer").at(0));
  for (const SaeDescription* d : {&ours, &lens, &dictionary, &circuit}) EXPECT_EQ(d->location.layer, 20);
  EXPECT_EQ(ours.l0, 20);
  EXPECT_EQ(ours.seed, 7u);
  EXPECT_EQ(lens.average_l0, 19.5);
  EXPECT_EQ(lens.context, 1024);
  EXPECT_EQ(lens.tokens, 5000);
  ASSERT_EQ(lens.density.size(), s.density.size());
  for (size_t i = 0; i < s.density.size(); ++i) EXPECT_NEAR(lens.density[i], s.density[i], 1e-6) << i;
  EXPECT_EQ(lens.density[1], 0);
  EXPECT_EQ(dictionary.l0, 20);
  EXPECT_EQ(dictionary.seed, 7u);
  EXPECT_EQ(dictionary.context, 1024);
}

// What cfg.json says of the sizes and of the place.
TEST(SaeFormats, SaeLensSaysWhatItIs) {
  const TempFolder dir;
  const std::string lens = dir / "lens";
  fs::copy(kData + "saelens_tiny", lens, fs::copy_options::recursive);
  const auto with = [&](const nlohmann::json& change) {
    nlohmann::json j = read_json(kData + "saelens_tiny/cfg.json");
    j.merge_patch(change);
    write_bytes(lens + "/cfg.json", j.dump());
  };
  with({{"d_in", 7}});
  EXPECT_ERROR(list_saes(lens), "d_in is 7, but W_enc");
  EXPECT_ERROR(load_saes(lens), "d_in is 7, but W_enc");
  with({{"d_sae", 7}});
  EXPECT_ERROR(list_saes(lens), "d_sae is 7, but W_enc");
  with({{"metadata", {{"hook_name", "blocks.3.ln2.hook_normalized"}, {"hf_hook_name", nullptr}}}});
  EXPECT_EQ(list_saes(lens).at(0).location.elsewhere, "blocks.3.ln2.hook_normalized");
  with({{"metadata", {{"hook_name", "blocks.3.hook_resid_post"}, {"hf_hook_name", "something.else"}}}});
  EXPECT_EQ(list_saes(lens).at(0).location.site, "res");
  EXPECT_EQ(list_saes(lens).at(0).location.elsewhere, "");
}

// Hooks of every site, there and back.
TEST(SaeFormats, HooksOfEverySite) {
  for (const char* site : {"pre", "att", "attn_out", "mlp_in", "mlp", "res"}) {
    const SaeLocation at{.model = "", .site = site, .layer = 12};
    for (const std::string& hook : {transformer_lens_hook(at), transformers_hook(at)}) {
      EXPECT_EQ(location_of_hook(hook).site, site) << hook;
      EXPECT_EQ(location_of_hook(hook).layer, 12) << hook;
    }
  }
  EXPECT_EQ(transformer_lens_hook({"", "mlp", 3}), "blocks.3.hook_mlp_out");
  EXPECT_EQ(transformers_hook({"", "mlp", 3}), "model.layers.3.post_feedforward_layernorm.output");
  EXPECT_EQ(transformers_hook({"", "res", 3}), "model.layers.3.output");
}

TEST(SaeFormats, FoldsOnlyWhatIsNotOfNormOne) {
  std::vector<float> W_enc{1, 2, 3, 4, 5, 6, 7, 8}, W_dec{0.6f, 0.8f, 3, 4, 0, 0, 0, 0.5f}, b_enc{1, 2, 3, 4},
      b_dec{5, 6}, threshold{1, 2, 3, 4};
  SaeParameters p;
  p.W_enc = view(W_enc.data(), {2, 4}), p.W_dec = view(W_dec.data(), {4, 2});
  p.b_enc = view(b_enc.data(), {4}), p.b_dec = view(b_dec.data(), {2}), p.threshold = view(threshold.data(), {4});
  const DecoderNorms norms = fold_decoder_norms(p);
  EXPECT_EQ(norms.folded, 2);
  EXPECT_EQ(norms.zero, 1);
  EXPECT_EQ(norms.furthest, 5);
  EXPECT_EQ(norms.furthest_of, 1);
  EXPECT_EQ(W_enc, (std::vector<float>{1, 10, 3, 2, 5, 30, 7, 4}));
  EXPECT_EQ(W_dec, (std::vector<float>{0.6f, 0.8f, 0.6f, 0.8f, 0, 0, 0, 1}));
  EXPECT_EQ(b_enc, (std::vector<float>{1, 10, 3, 2}));
  EXPECT_EQ(threshold, (std::vector<float>{1, 10, 3, 2}));
  EXPECT_EQ(b_dec, (std::vector<float>{5, 6}));
  EXPECT_EQ(fold_decoder_norms(p).folded, 0);
  W_enc[1] = 1.2e-38f, W_dec[2] = 0.5f, W_dec[3] = 0;  // a weight that leaves the normal numbers is as good as zero
  EXPECT_EQ(fold_decoder_norms(p).folded, 1);
  EXPECT_EQ(W_enc[1], 0.6e-38f);
  W_dec[2] = 1e-38f, W_dec[3] = 0, threshold[1] = 1e-10f;
  EXPECT_ERROR(fold_decoder_norms(p), "latent 1");
  W_dec[2] = 3e38f, W_enc[1] = 10, threshold[1] = 1;
  EXPECT_ERROR(fold_decoder_norms(p), "latent 1");
}

// A copy of a fixture that may be changed.
std::string copy_of(const TempFolder& dir, const std::string& from, const std::string& name) {
  fs::copy(from, dir / name, fs::copy_options::recursive);
  return dir / name;
}
void patch(const std::string& file, const nlohmann::json& change) {
  nlohmann::json j = read_json(file);
  j.merge_patch(change);
  write_bytes(file, j.dump());
}

// Of dictionary_learning's other classes and SAELens' other architectures: by name.
TEST(SaeFormats, RefusesOtherArchitectures) {
  const TempFolder dir;
  const std::string dl = copy_of(dir, kData + "dictionary_learning", "dl");
  for (const char* other : {"AutoEncoder", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE"}) {
    patch(dl + "/config.json", {{"trainer", {{"dict_class", other}}}});
    EXPECT_ERROR(load_saes(dl), other);
    EXPECT_ERROR(list_saes(dl), other);
  }
  write_bytes(dl + "/config.json", "{}");
  EXPECT_ERROR(load_saes(dl), "trainer");
  fs::remove(dl + "/config.json");  // a checkpoint alone
  EXPECT_EQ(load_saes(dl + "/ae.pt").at(0).location.layer, -1);
  // The config.json beside a file is read wherever one stands, and what it names is not taken for another place.
  const std::string topk = copy_of(dir, kData + "dictionary_learning", "topk");
  patch(topk + "/config.json", {{"trainer", {{"dict_class", "AutoEncoderTopK"}}}});
  const fs::path before = fs::current_path();
  fs::current_path(topk);
  EXPECT_ERROR(list_saes("ae.pt"), "AutoEncoderTopK");
  fs::current_path(before);
  patch(topk + "/config.json",
        {{"trainer", {{"dict_class", "JumpReluAutoEncoder"}, {"submodule_name", "mlp_out_layer_3"}}}});
  EXPECT_EQ(list_saes(topk).at(0).location.elsewhere, "mlp_out_layer_3");
  EXPECT_EQ(list_saes(topk).at(0).location.layer, -1);

  const std::string scope = copy_of(dir, kScope2, "scope");
  patch(scope + "/config.json", {{"hf_hook_point_out", "model.layers.7.post_feedforward_layernorm.output"}});
  EXPECT_ERROR(load_saes(scope), "transcoder, from model.layers.7.output to");
  patch(scope + "/config.json", {{"architecture", "topk"}});
  EXPECT_ERROR(list_saes(scope), "'topk'");
  fs::remove(scope + "/config.json");  // then the folders say it
  copy_of(dir, scope, "gemma-scope-2-1b-it");
  fs::create_directories(dir / "gemma-scope-2-4b-it/attn_out_all");
  const std::string named = copy_of(dir, scope, "gemma-scope-2-4b-it/attn_out_all/layer_11_width_16k_l0_big");
  const SaeFile file = list_saes(named).at(0);
  EXPECT_EQ(file.location.model, "google/gemma-3-4b-it");
  EXPECT_EQ(file.location.site, "att");
  EXPECT_EQ(file.location.layer, 11);
  fs::create_directories(dir / "gemma-scope-2-4b-it/transcoder_all");
  EXPECT_ERROR(list_saes(copy_of(dir, scope, "gemma-scope-2-4b-it/transcoder_all/layer_1_width_16k")),
               "transcoder_all");
  fs::create_directories(dir / "clt/resid_post");  // elsewhere such names mean nothing
  EXPECT_EQ(list_saes(copy_of(dir, scope, "clt/resid_post/a")).at(0).location.site, "");
}

// Tensors of a safetensors file, some left out or renamed.
void rewrite(const std::string& path, const std::string& out, const std::map<std::string, std::string>& names) {
  const SafetensorsFile file(path);
  std::vector<SafetensorsWriter::Declared> declared;
  for (const auto& [from, to] : names) declared.push_back({to, "F32", file.get(from).shape});
  SafetensorsWriter writer(out, declared);
  for (const auto& [from, to] : names) writer.append(to, file.get(from).data, file.get(from).bytes);
  writer.close();
}

TEST(SaeFormats, RefusesDamagedFiles) {
  const TempFolder dir;
  const std::string circuit = kData + "circuit_tracer/layer_5.safetensors", threshold = "activation_function.threshold";
  const auto with = [&](std::map<std::string, std::string> names) {
    rewrite(circuit, dir / "layer_9.safetensors", names);
    return error_of([&] { load_saes(dir / "layer_9.safetensors"); });
  };
  const std::map<std::string, std::string> all{
      {"W_enc", "W_enc"}, {"W_dec", "W_dec"}, {"b_enc", "b_enc"}, {"b_dec", "b_dec"}, {threshold, threshold}};
  rewrite(circuit, dir / "layer_9.safetensors", all);
  EXPECT_EQ(load_saes(dir.path()).at(0).location.layer, 9);
  auto some = all;
  some.erase("b_dec");
  EXPECT_NE(with(some).find("b_dec"), std::string::npos);
  some = all, some.erase(threshold);
  EXPECT_NE(with(some).find("has no activation_function.threshold"), std::string::npos);
  some = all, some["b_dec"] = "b_enc", some["b_enc"] = "b_dec";
  EXPECT_NE(with(some).find("b_enc has shape (12), but W_enc asks for (40)"), std::string::npos);
  some = all, some["b_dec"] = "W_skip";
  EXPECT_NE(with(some).find("skip connection"), std::string::npos);
  some = all, some["W_enc"] = "W_encoder";
  EXPECT_NE(with(some).find("is not an SAE"), std::string::npos);
  write_bytes(dir / "layer_9.safetensors", read_bytes(circuit).substr(0, 3000));
  EXPECT_ERROR(load_saes(dir.path()), "layer_9.safetensors");

  const std::string dl = copy_of(dir, kData + "dictionary_learning", "dl"), ae = dl + "/ae.pt";
  const std::string whole = read_bytes(ae);
  write_bytes(ae, whole.substr(0, whole.size() / 2));
  EXPECT_ERROR(load_saes(dl), "ae.pt");
  const std::vector<float> v(480, 0.5f), negative(40, -1), nan(40, std::nanf(""));
  const auto torch = [&](std::vector<int64_t> W_dec, const float* b_enc, const float* threshold) {
    write_torch(ae, {{"W_enc", {12, 40}, v.data()},
                     {"W_dec", W_dec, v.data()},
                     {"b_enc", {40}, b_enc},
                     {"b_dec", {12}, v.data()},
                     {"threshold", {40}, threshold}});
    return error_of([&] { load_saes(dl); });
  };
  EXPECT_NE(torch({12, 40}, v.data(), v.data()).find("W_dec has shape (12, 40), but W_enc asks for (40, 12)"),
            std::string::npos);
  EXPECT_NE(torch({40, 12}, nan.data(), v.data()).find("b_enc is nan"), std::string::npos);
  EXPECT_NE(torch({40, 12}, v.data(), negative.data()).find("threshold of latent 0"), std::string::npos);
  write_torch(ae, {{"encoder.weight", {40, 12}, v.data()}});
  EXPECT_ERROR(load_saes(dl), "this file encoder.weight");
  EXPECT_ERROR(list_saes(kData + "dictionary_learning", "saelens"), "holds no SAE: no cfg.json");
  EXPECT_ERROR(list_saes(kData + "dictionary_learning/config.json"), "is not an SAE");
  EXPECT_ERROR(list_saes(kData + "dtypes.pt"), "has no array W_enc");
}

}  // namespace
}  // namespace gsae::test
