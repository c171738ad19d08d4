#include "sae/sae_file.h"

#include <fmt/format.h>

#include "io/json.h"
#include "io/npz.h"
#include "io/output_file.h"
#include "io/safetensors.h"
#include "tests/files.h"
#include "tests/paths.h"
#include "tests/trainer_fixture.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;
const std::string kData = test_data(), kTiny = kData + "/formats/saelens_tiny";

// Small and valid: W_enc (2, 3).
struct Arrays {
  std::vector<float> W_enc{1, 2, 3, 4, 5, 6}, W_dec{1, 0, 0, 1, 0.6f, 0.8f}, b_enc{1, 2, 3}, b_dec{4, 5},
      threshold{0, 1, 2};
  std::vector<NpzMember> members() const {
    return {{"W_enc", {2, 3}, W_enc.data()},
            {"W_dec", {3, 2}, W_dec.data()},
            {"b_enc", {3}, b_enc.data()},
            {"b_dec", {2}, b_dec.data()},
            {"threshold", {3}, threshold.data()}};
  }
  SaeParameters params() {
    SaeParameters p;
    p.W_enc = view(W_enc.data(), {2, 3}), p.W_dec = view(W_dec.data(), {3, 2});
    p.b_enc = view(b_enc.data(), {3}), p.b_dec = view(b_dec.data(), {2}), p.threshold = view(threshold.data(), {3});
    return p;
  }
};

std::vector<float> host_values(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.size()}; }

TEST(SaeLocation, OfHooks) {
  const auto at = [](const char* hook) {
    const SaeLocation l = location_of_hook(hook);
    return fmt::format("{}.{}", l.site, l.layer);
  };
  EXPECT_EQ(at("blocks.3.hook_resid_post"), "res.3");
  EXPECT_EQ(at("blocks.25.hook_mlp_out"), "mlp.25");
  EXPECT_EQ(at("blocks.0.attn.hook_z"), "att.0");
  EXPECT_EQ(at("blocks.4.hook_resid_pre"), "pre.4");
  EXPECT_EQ(at("blocks.4.hook_attn_out"), "attn_out.4");
  EXPECT_EQ(at("model.layers.12"), "res.12");
  EXPECT_EQ(at("model.layers.12.output"), "res.12");
  EXPECT_EQ(at("model.layers.12.self_attn.o_proj.input"), "att.12");
  EXPECT_EQ(at("model.layers.12.post_feedforward_layernorm.output"), "mlp.12");
  EXPECT_EQ(at("model.layers.12.pre_feedforward_layernorm"), "mlp_in.12");
  for (const char* other :
       {"", "blocks", "blocks.", "blocks.x.hook_z", "blocks.3", "blocks.3.hook_resid_mid", "blocks.-1.hook_resid_post",
        "model.layers.3.mlp", "hook_embed", "blocks.3hook_resid_post", "blocks.99999999999999999999.hook_resid_post"})
    EXPECT_EQ(at(other), ".-1") << other;
  // It is said to lie elsewhere, and nothing else may say otherwise, but another hook's name.
  SaeLocation l = location_of_hook("blocks.3.ln2.hook_normalized");
  EXPECT_EQ(l.elsewhere, "blocks.3.ln2.hook_normalized");
  l.complete({.model = "m", .site = "res", .layer = 4});
  EXPECT_EQ(l.site + l.model, "m");
  EXPECT_EQ(l.layer, -1);
  EXPECT_EQ(location_of_hook("").elsewhere, "");
  EXPECT_EQ(location_of_hook("blocks.3.hook_resid_post").elsewhere, "");
}

TEST(SaeLocation, OfPaths) {
  SaeLocation l =
      location_of_path("/x/models--google--gemma-scope-9b-it-att/snapshots/ab/layer_31/width_16k/params.npz");
  EXPECT_EQ(l.model, "google/gemma-2-9b-it");
  EXPECT_EQ(l.site, "att");
  EXPECT_EQ(l.layer, 31);
  l = location_of_path("/res/gemma-scope-2b-pt-mlp/layer_3/params.npz");
  EXPECT_EQ(l.model, "google/gemma-2-2b");
  EXPECT_EQ(l.site, "mlp");  // the innermost
  l = location_of_path("runs/a/mlp/layer_20/width_16k/average_l0_71");
  EXPECT_EQ(l.model, "");
  EXPECT_EQ(l.site, "mlp");
  EXPECT_EQ(l.layer, 20);
  l = location_of_path("runs/layer_x/layer_1b/params.npz");
  EXPECT_EQ(l.layer, -1);
  EXPECT_EQ(l.site, "");
  EXPECT_EQ(location_of_path("/home/res/mlp/average_l0_7/params.npz").site, "");  // not the folder above a layer's
  EXPECT_EQ(location_of_path("/res/layer_3/width_4k/mlp/params.npz").site, "res");
  l = location_of_path("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_21/params.npz");
  EXPECT_EQ(l.site, "");
  EXPECT_EQ(l.elsewhere, "the token embeddings");
  EXPECT_TRUE(is_transcoder_path("/x/models--google--gemma-scope-2b-pt-transcoders/snapshots/a/layer_3"));
  EXPECT_FALSE(is_transcoder_path("/my-gemma-scope-and-transcoders/gemma-scope-vs-transcoders-2/layer_3"));
}

struct SaeFileOn : OnDevice {};
ON_DEVICES(SaeFileOn);

TEST_P(SaeFileOn, MovesToTheDevice) {
  LoadedSae sae = load_sae(list_saes(kTiny).at(0));
  const HostParameters on_host(ctx, sae.params);
  move_to_device(ctx, sae);
  EXPECT_EQ(sae.params.W_enc.device, ctx.device());
  EXPECT_TRUE(HostParameters(ctx, sae.params) == on_host);
}

// cfg.json of a SAELens folder, with some fields changed.
std::string saelens(const TempFolder& dir, const std::string& name, const nlohmann::json& patch) {
  fs::create_directories(dir / name);
  fs::copy_file(kTiny + "/sae_weights.safetensors", (dir / name) + "/sae_weights.safetensors");
  nlohmann::json j = read_json(kTiny + "/cfg.json");
  j.merge_patch(patch);
  write_bytes((dir / name) + "/cfg.json", j.dump());
  return dir / name;
}

TEST(SaeFile, SaeLensSettings) {
  const TempFolder dir;
  // Without the subtraction, b_enc is as stored.
  const auto plain = load_saes(saelens(dir, "plain", {{"apply_b_dec_to_input", false}}));
  EXPECT_EQ(host_values(plain[0].params.b_enc),
            to_f32(SafetensorsFile(kTiny + "/sae_weights.safetensors").get("b_enc")));
  // Before version 6 the metadata lay in the configuration itself, and normalisation was a flag.
  const auto old = load_saes(saelens(dir, "old",
                                     {{"metadata", nullptr},
                                      {"hook_point", "blocks.5.hook_resid_post"},
                                      {"model_name", "gemma-2-9b"},
                                      {"normalize_activations", false}}));
  EXPECT_EQ(old[0].location.site, "res");
  EXPECT_EQ(old[0].location.layer, 5);
  EXPECT_EQ(old[0].location.model, "gemma-2-9b");

  const auto listed = list_saes(dir / "old");
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].location.layer, 5);
  EXPECT_EQ(listed[0].width, old[0].params.width());
  EXPECT_EQ(listed[0].latents, old[0].params.latents());
  EXPECT_EQ(host_values(load_sae(listed[0]).params.b_enc), host_values(old[0].params.b_enc));

  EXPECT_ERROR(list_saes(saelens(dir, "listed", {{"architecture", "topk"}})), "topk");
  EXPECT_ERROR(load_saes(saelens(dir, "a", {{"architecture", "topk"}})), "topk");
  EXPECT_ERROR(load_saes(saelens(dir, "b", {{"architecture", nullptr}})), "standard");  // SAELens' default
  EXPECT_ERROR(load_saes(saelens(dir, "c", {{"normalize_activations", "layer_norm"}})), "layer_norm");
  EXPECT_ERROR(load_saes(saelens(dir, "d", {{"normalize_activations", true}})), "normalize_activations");
  EXPECT_ERROR(load_saes(saelens(dir, "e", {{"metadata", {{"hook_name_out", "blocks.8.hook_mlp_out"}}}})),
               "transcoder");
  EXPECT_ERROR(load_saes(saelens(dir, "f", {{"apply_b_dec_to_input", "yes"}})), "apply_b_dec_to_input");
  write_bytes((dir / "plain") + "/cfg.json", "[1]");
  EXPECT_ERROR(load_saes(dir / "plain"), "cfg.json");
  write_bytes((dir / "plain") + "/cfg.json", "{");
  EXPECT_ERROR(load_saes(dir / "plain"), "cfg.json");
}

// The golden's arrays are deflated, as Gemma Scope's are.
TEST(SaeFile, ReadsADeflatedNpz) {
  const auto saes = load_saes(kData + "/eval/params.npz");
  ASSERT_EQ(saes.size(), 1u);
  EXPECT_EQ(saes[0].params.width(), 192);
  EXPECT_EQ(saes[0].params.latents(), 4096);
  EXPECT_EQ(saes[0].location.layer, -1);
}

TEST(SaeFile, WritesAndReadsOurFolder) {
  const TempFolder dir;
  Arrays a;
  const std::string folder = dir / "run/layer_3/width_3/average_l0_2";
  SaeDescription description;
  description.location = {.model = "demo", .site = "mlp", .layer = 4};
  description.name = "mlp.4/3/l0_2";
  description.l0 = 2, description.tokens = 1000, description.seed = 7, description.input_scale = 1.5;
  write_sae_folder(folder, a.params(), description);
  write_sae_folder(dir / "run/layer_5/b", a.params(), {});
  fs::create_directories(dir / "run/checkpoints/7");
  write_npz(dir / "run/checkpoints/7/params.npz", a.members());

  const auto j = read_json(folder + "/config.json");
  EXPECT_EQ(j["sae"], "mlp.4/3/l0_2");
  EXPECT_EQ(j["site"], "mlp");
  EXPECT_EQ(j["layer"], 4);
  EXPECT_EQ(j["width"], 2);
  EXPECT_EQ(j["latents"], 3);
  EXPECT_EQ(j["l0"], 2);
  EXPECT_EQ(j["tokens"], 1000);
  EXPECT_EQ(j["seed"], 7);
  EXPECT_EQ(j["input_scale"], 1.5);
  EXPECT_EQ(j["version"], GSAE_VERSION);
  EXPECT_FALSE(j.contains("lambda"));

  for (const std::string& path : {folder, folder + "/params.npz"}) {
    const auto saes = load_saes(path);
    ASSERT_EQ(saes.size(), 1u);
    EXPECT_EQ(saes[0].location.site, "mlp");  // what config.json says goes before the path
    EXPECT_EQ(saes[0].location.layer, 4);
    EXPECT_EQ(saes[0].location.model, "demo");
    EXPECT_EQ(host_values(saes[0].params.W_enc), a.W_enc);
    EXPECT_EQ(host_values(saes[0].params.W_dec), a.W_dec);
    EXPECT_EQ(host_values(saes[0].params.b_enc), a.b_enc);
    EXPECT_EQ(host_values(saes[0].params.b_dec), a.b_dec);
    EXPECT_EQ(host_values(saes[0].params.threshold), a.threshold);
  }
  // and the same without their parameters
  const auto listed = list_saes(dir / "run");
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[0].path, folder + "/params.npz");
  EXPECT_EQ(listed[0].name, "mlp.4/3/l0_2");
  EXPECT_EQ(listed[0].l0, 2);
  EXPECT_EQ(listed[0].width, 2);
  EXPECT_EQ(listed[0].latents, 3);
  EXPECT_EQ(listed[0].location.site, "mlp");
  EXPECT_EQ(listed[1].location.layer, 5);
  EXPECT_EQ(listed[1].name, "");
  EXPECT_EQ(host_values(load_sae(listed[0]).params.W_enc), a.W_enc);
  const auto run = load_saes(dir / "run");  // every SAE of it, no checkpoint
  ASSERT_EQ(run.size(), 2u);
  EXPECT_EQ(run[0].location.layer, 4);
  EXPECT_EQ(run[1].location.layer, 5);
}

TEST(SaeFile, RefusesWhatIsNoSae) {
  const TempFolder dir;
  const std::string path = dir / "params.npz";
  const auto load = [&](std::vector<NpzMember> members) {
    write_npz(path, members);
    return load_saes(path);
  };
  const float nan = std::nanf(""), inf = HUGE_VALF;
  {
    Arrays a;
    EXPECT_EQ(load(a.members()).size(), 1u);
    auto m = a.members();
    m.erase(m.begin() + 1);
    EXPECT_ERROR(load(m), "W_dec");
    for (size_t i = 1; i < 5; ++i) {  // each array in another shape
      m = a.members();
      m[i].shape = i == 1 ? std::vector<int64_t>{2, 3} : std::vector<int64_t>{1, m[i].shape[0]};
      EXPECT_ERROR(load(m), m[i].name);
    }
    m = a.members();
    m[0].shape = {6};
    EXPECT_ERROR(load(m), "W_enc");
    EXPECT_ERROR(list_saes(path), "W_enc");
    m[0].shape = {0, 3};
    EXPECT_ERROR(load(m), "W_enc");
    EXPECT_ERROR(list_saes(path), "W_enc");
    EXPECT_ERROR(load({}), "W_enc");
    EXPECT_ERROR(list_saes(path), "W_enc");
  }
  for (const float bad : {nan, inf, -inf}) {
    Arrays a;
    a.W_dec[3] = bad;
    EXPECT_ERROR(load(a.members()), "W_dec");
  }
  Arrays a;
  a.threshold[1] = -0.5f;
  EXPECT_ERROR(load(a.members()), "latent 1");

  write_bytes(path, "no zip");
  EXPECT_ERROR(load_saes(path), "npz");
  EXPECT_ERROR(load_saes(dir / "missing"), "no such file");
  EXPECT_ERROR(load_saes(dir.path()), "params.npz");
  fs::remove(path);
  EXPECT_ERROR(load_saes(dir.path()), "holds no SAE");
  fs::create_directories(dir / "gemma-scope-2b-pt-transcoders");
  Arrays good;
  write_npz(dir / "gemma-scope-2b-pt-transcoders/params.npz", good.members());
  EXPECT_ERROR(load_saes(dir / "gemma-scope-2b-pt-transcoders"), "transcoder");
  EXPECT_ERROR(list_saes(dir / "gemma-scope-2b-pt-transcoders"), "transcoder");
  const fs::path before = fs::current_path();  // the same from within
  fs::current_path(dir / "gemma-scope-2b-pt-transcoders");
  EXPECT_ERROR(list_saes("params.npz"), "transcoder");
  EXPECT_ERROR(load_saes("."), "transcoder");
  fs::current_path(before);

  Arrays whole;
  write_npz(path, whole.members());
  for (const char* site : {"banana", "RES", "res,mlp"}) {
    write_bytes(dir / "config.json", fmt::format(R"({{"site": "{}", "layer": 3}})", site));
    EXPECT_ERROR(list_saes(path), fmt::format("site \"{}\" is none of pre", site).c_str());
  }
  fs::remove(dir / "config.json");
}

// Links that lead back, folders that may not be read, and those that are too deep.
TEST(SaeFile, LooksBelowAFolder) {
  const TempFolder dir;
  Arrays a;
  fs::create_directories(dir / "1/2/3/4/5/6/7");
  write_npz(dir / "1/2/3/4/5/6/params.npz", a.members());
  write_npz(dir / "1/2/3/4/5/6/7/params.npz", a.members());
  fs::create_directory_symlink(dir.path(), dir / "1/again");
  fs::create_directory_symlink(dir / "1/2/3/4", dir / "1/link");
  ASSERT_EQ(list_saes(dir / "1").size(), 2u);
  EXPECT_EQ(list_saes(dir.path()).size(), 1u);
  fs::remove(dir / "1/2/3/4/5/6/params.npz");
  fs::remove(dir / "1/link");
  EXPECT_ERROR(list_saes(dir.path()), "down to the 6th");
  if (geteuid() == 0) return;  // who may read everything
  fs::permissions(dir / "1/2", fs::perms::none);
  EXPECT_ERROR(list_saes(dir.path()), "cannot be read");
  fs::permissions(dir / "1/2", fs::perms::owner_all);
}

TEST(SaeFile, SaysWhyItCannotWrite) {
  const TempFolder dir;
  Arrays a;
  write_bytes(dir / "file", "x");
  EXPECT_ERROR(write_sae_folder(dir / "file/sub", a.params(), {}), "file/sub");
}

}  // namespace
}  // namespace gsae::test
