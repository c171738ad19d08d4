#include <filesystem>

#include "io/json.h"
#include "tests/report_fixture.h"
#include "tests/run_binary.h"
#include "tools/neuronpedia.h"

namespace gsae::test {
namespace {

using nlohmann::json;

TEST(Features, PrintsALatentsDashboard) {
  const CommandResult r = run_command(on_golden({"features", "--sae", kGoldenSae, "--latent", "7,1234"}));
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.err, "");
  for (const char* part : {"latent 7: active on ", "latent 1234: ", "raises", "lowers", "nearest", "largest",
                           "% of the activations", "█", ">>", "<<", "4096 latents at res of layer 3 of demo"})
    EXPECT_NE(r.out.find(part), std::string::npos) << part << " is not in\n" << r.out;
  EXPECT_EQ(r.out.find('\x1b'), std::string::npos) << "colours are for terminals";
}

TEST(Features, BadInput) {
  const TempFolder dir;
  expect_outcome(run_binary(on_golden({"features", "--sae", kGoldenSae, "--latent", "4096"})), 1,
                 {"params.npz", "0 to 4095", "4096"});
  expect_outcome(run_binary(on_golden({"features", "--sae", dir / "none", "--latent", "1"})), 1, {"none"});
  expect_outcome(run_binary(on_golden({"features", "--sae", kGoldenSae, "--latent", "x"})), 2, {"'x'"});
  expect_outcome(run_binary(on_golden({"features", "--sae", kGoldenSae, "--latent", "none"})), 2, {"nothing to print"});
  expect_outcome(run_binary(on_golden({"features", "--sae", kGoldenSae, "--eval-fraction", "nan"})), 2,
                 {"--eval-fraction", "nan", "from 0 to 0.99"});
  expect_outcome(run_binary(on_golden({"features", "--sae", kGoldenSae, "--examples", "21"})), 2, {"at most 20"});
  std::filesystem::create_directories(dir / "two/a");
  std::filesystem::create_directories(dir / "two/b");
  std::filesystem::copy_file(kGoldenSae, dir / "two/a/params.npz");
  std::filesystem::copy_file(kGoldenSae, dir / "two/b/params.npz");
  expect_outcome(run_binary(on_golden({"features", "--sae", dir / "two"})), 2, {"holds 2 SAEs"});
}

// The keys of SAEDashboard 0.8's NeuronpediaDashboardBatch, -Feature and -Activation.
const std::vector<std::string> kBatch{"model_id", "layer", "sae_set", "sae_id_suffix", "features"};
const std::vector<std::string> kFeature{"feature_index",
                                        "neuron_alignment_indices",
                                        "neuron_alignment_values",
                                        "neuron_alignment_l1",
                                        "correlated_neurons_indices",
                                        "correlated_neurons_l1",
                                        "correlated_neurons_pearson",
                                        "correlated_features_indices",
                                        "correlated_features_l1",
                                        "correlated_features_pearson",
                                        "neg_str",
                                        "neg_values",
                                        "pos_str",
                                        "pos_values",
                                        "frac_nonzero",
                                        "freq_hist_data_bar_values",
                                        "freq_hist_data_bar_heights",
                                        "logits_hist_data_bar_heights",
                                        "logits_hist_data_bar_values",
                                        "n_prompts_total",
                                        "n_tokens_in_prompt",
                                        "dataset",
                                        "decoder_weights_dist",
                                        "activations"};
const std::vector<std::string> kActivation{"bin_min", "bin_max", "bin_contains",
                                           "tokens",  "values",  "qualifying_token_index"};

std::vector<std::string> keys(const nlohmann::ordered_json& object) {
  std::vector<std::string> names;
  for (const auto& [key, value] : object.items()) names.push_back(key);
  return names;
}

TEST(Neuronpedia, WritesTheBatchesThatItImports) {
  const TempFolder dir;
  const CommandResult r =
      run_command(on_golden({"report", kGoldenSae, "--format", "neuronpedia", "--out", dir / "np", "--count", "130"}));
  ASSERT_EQ(r.status, 0) << r.err;
  size_t features = 0;
  for (const auto& [name, count] : {std::pair("batch-0.json", 128u), {"batch-1.json", 2u}}) {
    const auto batch = nlohmann::ordered_json::parse(read_bytes(dir / (std::string("np/") + name)));
    EXPECT_EQ(keys(batch), kBatch);
    EXPECT_EQ(batch["model_id"], "demo");
    EXPECT_EQ(batch["layer"], 3);
    ASSERT_EQ(batch["features"].size(), count);
    for (const auto& f : batch["features"]) {
      ++features;
      ASSERT_EQ(keys(f), kFeature);
      for (const auto& [a, b] : {std::pair("neg_str", "neg_values"),
                                 {"pos_str", "pos_values"},
                                 {"freq_hist_data_bar_heights", "freq_hist_data_bar_values"},
                                 {"logits_hist_data_bar_heights", "logits_hist_data_bar_values"},
                                 {"neuron_alignment_indices", "neuron_alignment_values"}}) {
        EXPECT_EQ(f[a].size(), f[b].size()) << a;
        EXPECT_GT(f[a].size(), 0u) << a;
      }
      EXPECT_GT(f["frac_nonzero"].get<double>(), 0);
      ASSERT_FALSE(f["activations"].empty());
      double contains = 0, last_bin = -1;
      for (const auto& a : f["activations"]) {
        ASSERT_EQ(keys(a), kActivation);
        ASSERT_EQ(a["tokens"].size(), a["values"].size());
        const auto peak = a["qualifying_token_index"].get<size_t>();
        ASSERT_LT(peak, a["values"].size());
        EXPECT_GT(a["values"][peak].get<double>(), 0);
        if (a["bin_min"] == -1) {
          EXPECT_EQ(a["bin_contains"], -1);
        } else if (a["bin_min"] != last_bin) {
          last_bin = a["bin_min"], contains += a["bin_contains"].get<double>();
        }
      }
      EXPECT_NEAR(contains, f["frac_nonzero"].get<double>(), 1e-9);
    }
  }
  EXPECT_EQ(features, 130u);
}

// A copy of an SAE in a folder of Gemma Scope's layout, with no name but its place.
void lay_in(const std::string& folder) {
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(kGoldenSae, folder + "/params.npz");
}

std::vector<std::string> on_little(std::vector<std::string> words) {
  words.insert(words.end(), {"--format", "neuronpedia", "--count", "1", "--tokens", "512"});
  return on_golden(words);
}

std::string set_of(const std::string& folder) { return read_json(folder + "/batch-0.json")["sae_set"]; }

TEST(Neuronpedia, SaesOfOneNameDoNotMeet) {
  const TempFolder dir;
  for (const char* l0 : {"32", "400"}) lay_in(dir / ("gs/layer_3/width_4k/average_l0_" + std::string(l0)));
  const Outcome o = run_binary(on_little({"report", dir / "gs", "--out", dir / "np"}));
  ASSERT_EQ(o.status, 0) << o.err;
  EXPECT_NE(o.out.find("wrote 2 batches of 2 SAEs into " + dir / "np"), std::string::npos) << o.out;
  for (const char* name : {"res.3-4k-average_l0_32", "res.3-4k-average_l0_400"})
    EXPECT_EQ(set_of(dir / ("np/" + std::string(name))), name);
}

TEST(Neuronpedia, RunsOfOneNameDoNotMeet) {
  const TempFolder dir;
  lay_in(dir / "p/run"), lay_in(dir / "q/run");
  const Outcome o = run_binary(on_little({"report", dir / "p/run", dir / "q/run", "--out", dir / "np"}));
  ASSERT_EQ(o.status, 0) << o.err;
  for (const char* name : {"run-p-res.3-4k", "run-q-res.3-4k"})
    EXPECT_EQ(set_of(dir / ("np/" + std::string(name))), name);
}

TEST(Neuronpedia, TheModelIsCalledByItsName) {
  for (const auto& [model, name] : {std::pair("demo", "demo"),
                                    {"google/gemma-2-2b", "gemma-2-2b"},
                                    {"google/gemma-2-2b@main", "gemma-2-2b"},
                                    {"/x/demo/model/", "model"},
                                    {"/x/demo/model/.", "model"},
                                    {"/c/hub/models--google--gemma-2-2b/snapshots/0f3c/", "gemma-2-2b"}})
    EXPECT_EQ(neuronpedia_model(model), name) << model;
  EXPECT_THROW(neuronpedia_model("/"), Error);
}

}  // namespace
}  // namespace gsae::test
