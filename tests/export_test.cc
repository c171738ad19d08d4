// gemma_sae export and import, through the binary.
#include <fmt/format.h>
#include <sys/resource.h>

#include <cmath>

#include "io/json.h"
#include "io/npz.h"
#include "sae/sae_file.h"
#include "tests/command.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;
const std::string kData = test_data("formats/"), kOurs = test_data("eval/params.npz");

void expect_said(const CommandResult& r, int status, const std::vector<std::string>& parts) {
  EXPECT_EQ(r.status, status) << r.err;
  for (const std::string& part : parts)
    EXPECT_NE((r.out + r.err).find(part), std::string::npos) << "'" << part << "' is not in: " << r.out << r.err;
}

// Two SAEs of a run's shape, and one lying loose.
struct ARun {
  TempFolder dir;
  std::string run = dir / "run";
  std::vector<std::string> places{"layer_3/width_4k/average_l0_32", "layer_3/width_4k/average_l0_40"};
  ARun() {
    for (const std::string& place : places) {
      fs::create_directories(run + "/" + place);
      fs::copy_file(kOurs, run + "/" + place + "/params.npz");
      write_bytes(run + "/" + place + "/config.json",
                  R"({"model": "demo", "site": "res", "layer": 3, "sae": "a", "tokens": 7})");
    }
  }
};

TEST(Export, AWholeRunThereAndBack) {
  const ARun r;
  for (const std::string& format : sae_formats(true)) {
    const std::string out = r.dir / format, back = r.dir / ("back_" + format);
    expect_said(
        run_command({"export", "--sae", r.run, "--format", format, "--out", out, "--model", "google/gemma-2-2b"}), 0,
        {"average_l0_32", "average_l0_40 (" + format});
    expect_said(run_command({"import", "--from", out, "--out", back}), 0, {format});
    for (const std::string& place : r.places) {
      EXPECT_EQ(list_saes(out + "/" + place).at(0).format, format);
      expect_said(run_command({"info", out + "/" + place}), 0, {format, "4096", "W_enc"});
      const auto a = read_npz(kOurs), b = read_npz(back + "/" + place + "/params.npz");
      EXPECT_EQ(b.size(), 5u);
      for (const auto& [name, array] : b) EXPECT_EQ(array.values, a.at(name).values) << format << " " << name;
      const auto config = read_json(back + "/" + place + "/config.json");
      EXPECT_EQ(config["model"], "google/gemma-2-2b");
      EXPECT_EQ(config["site"], "res");
      EXPECT_EQ(config["layer"], 3);
      // what the format does not say is not made up
      EXPECT_EQ(config.contains("tokens"), format == "gemma-scope" || format == "saelens");
      EXPECT_FALSE(config.contains("seed"));
    }
  }
  // A model's folder is no name for others; here it is, and is found again.
  const std::string one = r.run + "/" + r.places[0], model = r.dir / "models/gemma-2-2b";
  fs::create_directories(model);
  write_bytes(one + "/config.json", fmt::format(R"({{"model": "{}", "site": "res", "layer": 3}})", model));
  expect_said(run_command({"export", "--sae", one, "--format", "saelens", "--out", r.dir / "named"}), 0, {});
  EXPECT_EQ(read_json(r.dir / "named/cfg.json")["metadata"]["model_name"], "gemma-2-2b");
  expect_said(run_command({"export", "--sae", one, "--format", "gemma-scope", "--out", r.dir / "here"}), 0, {});
  EXPECT_EQ(read_json(r.dir / "here/config.json")["model"], model);
  // One SAE is written to the folder itself.
  expect_said(
      run_command({"export", "--sae", r.run + "/" + r.places[0], "--format", "saelens", "--out", r.dir / "one"}), 0,
      {});
  EXPECT_TRUE(fs::exists(r.dir / "one/cfg.json"));
  // A set of circuit-tracer's has several in one folder.
  fs::create_directories(r.dir / "set");
  for (const char* layer : {"0", "1"})
    fs::copy_file(kData + "circuit_tracer/layer_5.safetensors", (r.dir / "set/layer_") + layer + ".safetensors");
  expect_said(run_command({"import", "--from", r.dir / "set", "--site", "mlp", "--out", r.dir / "set_of_ours"}), 0,
              {"layer_1"});
  EXPECT_EQ(read_json(r.dir / "set_of_ours/layer_1/config.json")["layer"], 1);
  EXPECT_EQ(read_json(r.dir / "set_of_ours/layer_0/config.json")["site"], "mlp");
}

// Two that would be written to one folder: nothing is.
TEST(Export, RefusesToWriteTwoIntoOne) {
  const TempFolder dir;
  fs::create_directories(dir / "in/layer_3");
  for (const char* layer : {"3", "4"})
    fs::copy_file(kData + "circuit_tracer/layer_5.safetensors", (dir / "in/layer_") + layer + ".safetensors");
  fs::copy_file(kOurs, dir / "in/layer_3/params.npz");
  expect_said(run_command({"import", "--from", dir / "in", "--site", "mlp", "--out", dir / "out"}), 1,
              {"in/layer_3.safetensors and ", "in/layer_3/params.npz would both be written to ", "out/layer_3"});
  EXPECT_FALSE(fs::exists(dir / "out"));
}

TEST(Export, SaysWhatItFolds) {
  const TempFolder dir;
  expect_said(run_command({"import", "--from", kData + "gemma_scope_2", "--out", dir / "ours"}), 0,
              {"37 of 40 decoder rows were not of norm 1", "(latent 0: 0.5)", "1 of 40 decoder rows are zero"});
  const auto folded = read_npz(dir / "ours/params.npz");
  for (int i = 0; i < 40; ++i) {
    double square = 0;
    for (int c = 0; c < 12; ++c) square += std::pow(double(folded.at("W_dec").values[i * 12 + c]), 2);
    EXPECT_NEAR(std::sqrt(square), i == 3 ? 0 : 1, 1e-6) << i;
  }
  const CommandResult again = run_command({"import", "--from", dir / "ours", "--out", dir / "again"});
  EXPECT_EQ(again.err.find("not of norm 1"), std::string::npos) << again.err;
  EXPECT_EQ(read_bytes(dir / "again/params.npz"), read_bytes(dir / "ours/params.npz"));
}

TEST(Export, RefusesWhatCannotBe) {
  const ARun r;
  const std::string sae = r.run + "/" + r.places[0];
  const auto import = [&](std::vector<std::string> more) {
    more.insert(more.begin(), "import");
    more.insert(more.end(), {"--out", r.dir / "out"});
    return run_command(more);
  };
  expect_said(import({"--from", sae, "--site", "mlp"}), 2, {"--site mlp, but ", "reads site res"});
  expect_said(import({"--from", sae, "--layer", "4"}), 2, {"--layer 4, but ", "reads layer 3"});
  expect_said(import({"--from", sae, "--layer", "x"}), 2, {"--layer"});
  expect_said(import({"--from", sae, "--site", "res,mlp"}), 2, {"one site"});
  expect_said(import({"--from", sae, "--format", "saelens"}), 1, {"holds no SAE: no cfg.json"});
  expect_said(import({"--from", sae, "--format", "onnx"}), 2, {"onnx"});
  expect_said(import({"--from", test_data("forward")}), 1, {"holds no SAE", "ae.pt"});
  expect_said(import({"--from", r.dir / "absent"}), 1, {"absent: no such file"});
  expect_said(run_command({"export", "--sae", r.run, "--out", r.run}), 1, {"is not empty"});
  expect_said(run_command({"export", "--sae", r.run, "--out", kOurs}), 1, {"is a file"});
  expect_said(run_command({"export", "--sae", kOurs, "--format", "saelens", "--out", r.dir / "out"}), 1,
              {"which model", "--model"});
  expect_said(
      run_command({"export", "--sae", kOurs, "--format", "circuit-tracer", "--model", "m", "--out", r.dir / "out"}), 1,
      {"which layer", "--layer"});
  fs::copy(kData + "dictionary_learning", r.dir / "dl");
  write_bytes(r.dir / "dl/config.json",
              R"({"trainer": {"dict_class": "JumpReluAutoEncoder", "submodule_name": "mlp_out_layer_3"}})");
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"import", "--from", r.dir / "dl", "--out", r.dir / "out"},
        {"eval", "--model", "demo", "--sae", r.dir / "dl"}}) {
    auto given = command;
    given.insert(given.end(), {"--site", "mlp", "--layer", "3"});
    expect_said(run_command(given), 1, {"says that it reads mlp_out_layer_3, which is none of the sites"});
  }
  EXPECT_FALSE(fs::exists(r.dir / "out"));
  expect_said(run_command({"eval", "--model", "demo", "--sae", sae, "--site", "mlp"}), 2,
              {"--site mlp, but ", "reads site res"});
  expect_said(run_command({"eval", "--model", "demo", "--layer", "1", "--site", "res", "--sae",
                           kData + "dictionary_learning/ae.pt"}),
              2, {"--layer 1, but ", "layer 7"});
  expect_said(
      run_command({"eval", "--model", "demo", "--layer", "5", "--site", "res", "--sae", kData + "circuit_tracer"}), 1,
      {"width 12", "192"});
}

// A disk that is full: nothing is left of the SAE that did not fit.
TEST(Export, LeavesNothingHalfWritten) {
  const ARun r;
  for (const std::string& format : sae_formats(true)) {
    rlimit old{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
    const rlimit small{1 << 20, old.rlim_max};  // the SAE has 6 MiB
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    const CommandResult result = run_command({"export", "--sae", r.run, "--format", format, "--out", r.dir / "full/x"});
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
    EXPECT_NE(result.status, 0) << format;
    EXPECT_FALSE(fs::exists(r.dir / "full")) << format << result.err;
  }
}

}  // namespace
}  // namespace gsae::test
