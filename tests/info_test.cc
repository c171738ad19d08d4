#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

#include <nlohmann/json.hpp>

#include "io/npz.h"
#include "io/safetensors.h"
#include "tests/files.h"
#include "tests/paths.h"
#include "tools/options.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;

const std::string kData = test_data(), kDemo = demo_data("model");

std::string info(std::vector<std::string> arguments) {
  CLI::App app("", "gemma_sae");
  add_info(app);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
  arguments.push_back("info");
  testing::internal::CaptureStdout();
  try {
    app.parse(arguments);
  } catch (...) {
    testing::internal::GetCapturedStdout();
    throw;
  }
  return testing::internal::GetCapturedStdout();
}
nlohmann::json info_json(const std::string& path) { return nlohmann::json::parse(info({"--json", path})); }

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }
#define EXPECT_CONTAINS(text, part) EXPECT_PRED2(contains, text, part)

void write_sae(const std::string& dir) {
  fs::create_directories(dir);
  const std::vector<float> v(48, 0.5f);
  write_npz(dir + "/params.npz", {{"W_enc", {4, 12}, v.data()},
                                  {"W_dec", {12, 4}, v.data()},
                                  {"b_enc", {12}, v.data()},
                                  {"b_dec", {4}, v.data()},
                                  {"threshold", {12}, v.data()}});
  write_bytes(dir + "/config.json", R"({"architecture": "jumprelu", "tokens": 2000000})");
  write_bytes(dir + "/eval.json", R"({"l0": {"value": 31.5, "standard_error": 0.1}, "fvu": 0.125, "dead": 0.004})");
}

TEST(Info, Safetensors) {
  const auto j = info_json(kData + "/formats/dtypes.safetensors");
  EXPECT_EQ(j["kind"], "safetensors");
  EXPECT_EQ(j["tensors"].size(), 17u);
  EXPECT_EQ(j["elements"], 15 * 6 + 1);
  EXPECT_EQ(j["metadata"]["note"], "naïve \"quotes\"");
  const std::string text = info({kData + "/formats/dtypes.safetensors"});
  EXPECT_CONTAINS(text, "dtypes.safetensors: safetensors");
  EXPECT_CONTAINS(text, "(2, 3)");
  EXPECT_CONTAINS(text, "F8_E4M3");
}

TEST(Info, NpzAndNpy) {
  const auto j = info_json(kData + "/eval/params.npz");
  EXPECT_EQ(j["kind"], "npz");
  EXPECT_EQ(j["arrays"].size(), 5u);
  EXPECT_EQ(j["arrays"][0]["shape"], (std::vector{192, 4096}));
  EXPECT_GT(j["arrays"][0]["bytes"], j["arrays"][0]["stored_bytes"]);
  EXPECT_CONTAINS(info({kData + "/eval/params.npz"}), "(192, 4096)");

  const auto k = info_json(kData + "/formats/fortran.npy");
  EXPECT_EQ(k["kind"], "npy");
  EXPECT_EQ(k["order"], "Fortran");
  EXPECT_EQ(k["shape"], (std::vector{2, 3}));
}

TEST(Info, SeveralPaths) {
  const std::string a = kData + "/formats/stored.npz", b = kData + "/formats/version2.npy";
  const std::string lines = info({"--json", a, b});
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2);
  EXPECT_CONTAINS(info({a, b}), "version2.npy: npy");
}

TEST(Info, DemoModel) {
  for (const std::string& path : {kDemo, std::string("demo")}) {
    const auto j = info_json(path);
    EXPECT_EQ(j["kind"], "model");
    EXPECT_EQ(j["num_hidden_layers"], 6);
    EXPECT_EQ(j["hidden_size"], 192);
    EXPECT_EQ(j["weights"], std::vector<std::string>{"BF16"});
    EXPECT_EQ(j["supported"], true);
    EXPECT_EQ(j["complete"], true) << j;
    EXPECT_EQ(j["tokenizer"], true);
    // Embedding, final norm; per layer attention (4 + 4 + 2 + 2 heads of 64), MLP and four norms.
    EXPECT_EQ(j["parameters"], 4096 * 192 + 192 + 6 * (12 * 64 * 192 + 3 * 768 * 192 + 4 * 192));
  }
  EXPECT_CONTAINS(info({"demo"}), "complete");
}

TEST(Info, ModelsThatAreNotWhole) {
  const TempFolder folder;
  fs::copy(kDemo + "/config.json", folder / "config.json");
  EXPECT_EQ(info_json(folder.path())["problems"][0], "model.safetensors is missing");

  write_bytes(folder / "model.safetensors.index.json",
              R"({"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}})");
  {
    SafetensorsWriter w(folder / "one.safetensors", {{"a", "U8", {1}}});
    w.append("a", "x", 1);
    w.close();
  }
  auto j = info_json(folder.path());
  EXPECT_EQ(j["complete"], false);
  EXPECT_EQ(j["problems"], (std::vector<std::string>{"one.safetensors lacks b", "two.safetensors is missing"}));

  write_bytes(folder / "model.safetensors", read_bytes(kDemo + "/model.safetensors").substr(0, 100000));
  j = info_json(folder.path());
  EXPECT_EQ(j["complete"], false);
  EXPECT_CONTAINS(j["problems"][0].get<std::string>(), "cut short");
  EXPECT_CONTAINS(info({folder.path()}), "cut short");

  write_bytes(folder / "model.safetensors", read_bytes(folder / "one.safetensors"));
  EXPECT_CONTAINS(info_json(folder.path())["problems"][0].get<std::string>(), "config.json asks for");

  write_bytes(folder / "config.json", R"({"model_type": "llama", "hidden_size": 8})");
  j = info_json(folder.path());
  EXPECT_EQ(j["supported"], false);
  EXPECT_CONTAINS(j["unsupported_because"].get<std::string>(), "llama");

  fs::remove(folder / "model.safetensors");
  write_bytes(folder / "model.safetensors.index.json", R"({"weight_map": {"a": "../x.safetensors"}})");
  EXPECT_ERROR(info({folder.path()}), "names no file in this folder");
}

TEST(Info, SaeFolders) {
  const TempFolder folder;
  const std::string dir = folder / "layer_20/width_16k/average_l0_71";
  write_sae(dir);
  const auto j = info_json(dir);
  EXPECT_EQ(j["kind"], "sae");
  EXPECT_EQ(j["format"], "gemma-scope");
  EXPECT_EQ(j["d"], 4);
  EXPECT_EQ(j["latents"], 12);
  EXPECT_EQ(j["layer"], 20);
  EXPECT_EQ(j["config"]["tokens"], 2000000);
  EXPECT_EQ(j["eval"]["fvu"], 0.125);
  EXPECT_CONTAINS(info({dir}), "31.5 +- 0.1");

  const auto all = info_json(folder.path());
  EXPECT_EQ(all["kind"], "folder");
  EXPECT_EQ(all["saes"][0]["path"], "layer_20/width_16k/average_l0_71");
  EXPECT_EQ(all["saes"][0]["l0"], 31.5);
  EXPECT_EQ(all["saes"][0]["dead"], 0.004);

  const auto s = info_json(kData + "/formats/saelens_tiny");
  EXPECT_EQ(s["format"], "saelens");
  EXPECT_EQ(s["d"], 12);
  EXPECT_EQ(s["latents"], 40);
  EXPECT_EQ(s["config"]["architecture"], "jumprelu");
}

TEST(Info, RunFolder) {
  const TempFolder folder;
  write_bytes(folder / "config.json", R"({"recipe": {"lr": 7e-5}})");
  write_bytes(folder / "train.jsonl", "");
  EXPECT_EQ(info_json(folder.path())["log"]["lines"], 0);
  write_bytes(folder / "train.jsonl", "{\"step\": 1}\n{\"step\": 2}\n{\"ste");  // one is being written
  const auto j = info_json(folder.path());
  EXPECT_EQ(j["kind"], "run");
  EXPECT_EQ(j["finished"], false);
  EXPECT_EQ(j["log"]["lines"], 2);
  EXPECT_EQ(j["log"]["last"]["step"], 2);
  EXPECT_EQ(j["config"]["recipe"]["lr"], 7e-5);
  write_sae(folder / "layer_3/width_4k/average_l0_32");
  write_sae(folder / "checkpoints/x");  // no result
  EXPECT_EQ(info_json(folder.path())["finished"], true);
  EXPECT_EQ(info_json(folder.path())["saes"].size(), 1u);
  EXPECT_CONTAINS(info({folder.path()}), "layer_3/width_4k/average_l0_32");
}

TEST(Info, Errors) {
  const TempFolder folder;
  EXPECT_ERROR(info({folder.path()}), "holds nothing that info knows");
  EXPECT_ERROR(info({folder / "absent"}), "no such file or folder");
  write_bytes(folder / "a.txt", "x");
  EXPECT_ERROR(info({folder / "a.txt"}), "not a kind of file");
  write_bytes(folder / "a.npy", read_bytes(kData + "/formats/version2.npy") + "x");
  EXPECT_ERROR(info({folder / "a.npy"}), "cut short or damaged");
  EXPECT_THROW(info({}), CLI::ParseError);
}

// A name that would clear the screen and set the title of the terminal.
TEST(Info, ControlCharactersStayInTheFile) {
  const TempFolder folder;
  SafetensorsWriter w(folder / "x.safetensors", {{"a\x1b[2J\x07", "U8", {1}}}, {{"k\x1b", "v\n\x1b]0;x"}});
  w.append("a\x1b[2J\x07", "x", 1);
  w.close();
  const std::string text = info({folder / "x.safetensors"});
  EXPECT_CONTAINS(text, "a?[2J?");
  EXPECT_EQ(text.find('\x1b'), text.npos);
  EXPECT_EQ(info({"--json", folder / "x.safetensors"}).find('\x1b'), text.npos);
}

}  // namespace
}  // namespace gsae::test
