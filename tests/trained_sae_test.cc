#include "tools/trained_sae.h"

#include <fmt/format.h>

#include "io/json.h"
#include "tests/files.h"
#include "tools/lay_out.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;

std::vector<float> host_values(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.size()}; }

// Trained parameters: rows of W_dec of norm 1, everything else told apart by `mark`.
struct Trained {
  explicit Trained(float mark, int64_t latents = 2)
      : params(*allocate<SaeState>(Device::kCpu, memory, int64_t{3}, latents, DType::kF32)) {  // zeros
    std::fill_n(params.p().W_enc.data<float>(), 3 * latents, mark);
    std::fill_n(params.p().threshold.data<float>(), latents, 0.5f);
    for (int64_t i = 0; i < latents; ++i) params.p().W_dec.data<float>()[i * 3] = 1;
  }
  Buffer memory;
  SaeState params;
};

SaeDescription description(const std::string& site, int64_t layer, const std::string& name = "") {
  SaeDescription d;
  d.location = {"demo", site, layer};
  d.name = name, d.l0 = 70, d.input_scale = 2;
  return d;
}

nlohmann::ordered_json evaluation() { return {{"l0", 1}}; }

TEST(TrainedSae, FoldersByLayerAndWidthAndBySiteIfThereAreSeveral) {
  const TempFolder dir;
  Context ctx(Device::kCpu);
  const Trained trained(7, 1024);
  TrainedSae one({.run = dir.path()}, description("mlp", 20), 1024);
  one.write(ctx, trained.params, 71.4);
  EXPECT_EQ(one.path(), dir / "layer_20/width_1k/average_l0_71");
  TrainedSae of_suite({.run = dir.path(), .several_sites = true, .alone = false},
                      description("mlp", 3, "mlp.3/1k/l0_70"), 1024);
  of_suite.write(ctx, trained.params, 71.5);
  EXPECT_EQ(of_suite.path(), dir / "mlp/layer_3/width_1k/average_l0_72");
  const auto config = read_json(of_suite.path() + "/config.json");
  EXPECT_EQ(config.at("sae"), "mlp.3/1k/l0_70");
  EXPECT_EQ(config.at("average_l0"), 71.5);

  TrainedSae stopped({.run = dir.path()}, description("res", 4), 1024);
  stopped.write_interrupted(ctx, trained.params, 5, 12);
  EXPECT_EQ(stopped.path(), dir / "interrupted/step_12");
  TrainedSae stopped_suite({.run = dir.path(), .several_sites = true, .alone = false}, description("res", 4), 1024);
  stopped_suite.write_interrupted(ctx, trained.params, 5, 13);
  EXPECT_EQ(stopped_suite.path(), dir / "interrupted/step_13/res/layer_4/width_1k/average_l0_5");
  EXPECT_EQ(list_saes(dir.path()).size(), 4u);  // wherever they are
}

TEST(TrainedSae, IsReadBackWhereItIs) {
  const TempFolder dir;
  Context ctx(Device::kCpu);
  const Trained trained(7);
  TrainedSae sae({.run = dir.path()}, description("mlp", 3, "mlp.3/2/l0_70"), 2);
  sae.write(ctx, trained.params, 71);
  sae.add_evaluation(65.2, {0.5f, 0}, evaluation());
  EXPECT_EQ(sae.path(), dir / "layer_3/width_2/average_l0_65");
  EXPECT_EQ(read_json(sae.path() + "/config.json").at("average_l0"), 65.2);
  EXPECT_EQ(read_json(sae.path() + "/eval.json").at("l0"), 1);
  EXPECT_EQ(read_sae_description(sae.path(), 2).density, (std::vector<float>{0.5f, 0}));
  EXPECT_ERROR(read_sae_description(sae.path(), 3), "densities of 3 latents");
  const EvaluationTarget target = sae.target();
  EXPECT_EQ(target.name, "mlp.3/2/l0_70");
  EXPECT_EQ(target.site, Site::kMlp);
  EXPECT_EQ(target.layer, 3);
  EXPECT_EQ(target.width, 3);
  EXPECT_EQ(target.latents, 2);
  EXPECT_EQ(target.l0, 70);
  const LoadedSae loaded = target.load();
  EXPECT_EQ(host_values(loaded.params.W_enc), std::vector<float>(6, 7));
  EXPECT_EQ(host_values(loaded.params.threshold), std::vector<float>(2, 1));  // folded: C = 2
}

// What is written, and what is renamed after its evaluation, never takes the place of another.
TEST(TrainedSae, TwoOfOneNameBothSurvive) {
  const TempFolder dir;
  Context ctx(Device::kCpu);
  std::vector<Trained> trained;
  for (int i = 0; i < 8; ++i) trained.emplace_back(float(i + 1));
  const std::string at = dir / "layer_3/width_2/average_l0_";
  std::vector<TrainedSae> saes;
  const auto write = [&](double l0) {
    saes.emplace_back(TrainedSae::Folder{.run = dir.path(), .alone = false}, description("res", 3), 2);
    saes.back().write(ctx, trained[saes.size() - 1].params, l0);
    return saes.back().path();
  };
  EXPECT_EQ(write(71), at + "71");
  EXPECT_EQ(write(71.3), at + "71.3");
  EXPECT_EQ(write(70.96), at + "71.0");
  EXPECT_EQ(write(71), at + "71.00");
  EXPECT_EQ(write(71), at + "71.000");
  EXPECT_EQ(write(71), at + "71.0000");
  EXPECT_EQ(write(71), at + "71_2");
  EXPECT_EQ(write(71), at + "71_3");

  const auto evaluate = [&](size_t i, double l0) {
    saes[i].add_evaluation(l0, {}, evaluation());
    return saes[i].path();
  };
  EXPECT_EQ(evaluate(0, 71.2), at + "71");    // its own name still
  EXPECT_EQ(evaluate(1, 71.2), at + "71.2");  // taken by the first
  EXPECT_EQ(evaluate(2, 60), at + "60");
  EXPECT_EQ(evaluate(6, 71), at + "71.0");  // free by now
  const std::vector<SaeFile> files = list_saes(dir.path());
  ASSERT_EQ(files.size(), saes.size());
  for (size_t i = 0; i < saes.size(); ++i)
    EXPECT_EQ(host_values(saes[i].target().load().params.W_enc)[0], float(i + 1)) << saes[i].path();
}

TEST(TrainedSae, AFileInTheWayIsNoFolderOfOurs) {
  const TempFolder dir;
  write_bytes(dir / "average_l0_71", "");
  fs::create_symlink(dir / "nowhere", dir / "average_l0_71.2");
  EXPECT_EQ(unused_l0_folder(dir.path(), 71.25), dir / "average_l0_71.25");
  EXPECT_EQ(unused_l0_folder(dir.path(), 71.25, dir / "average_l0_71"), dir / "average_l0_71");
}

}  // namespace
}  // namespace gsae::test
