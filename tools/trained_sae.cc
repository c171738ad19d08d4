#include "tools/trained_sae.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/output_file.h"
#include "sae/sae_trainer.h"
#include "tools/options.h"

namespace gsae {

namespace fs = std::filesystem;

TrainedSae::TrainedSae(Context& ctx, const SaeParameters& trained, const std::string& run_folder,
                       const SaeDescription& description)
    : run_folder_(run_folder), description_(description) {
  Arena plan;
  SaeParameters(plan, trained.width(), trained.latents());
  memory_ = Buffer(Device::kCpu, plan.used());
  Arena arena(memory_);
  folded_ = SaeParameters(arena, trained.width(), trained.latents());
  fold(ctx, folded_, trained, description.input_scale);
}

void TrainedSae::write(double l0) {
  description_.average_l0 = l0;
  write_to(named(l0));
}

void TrainedSae::write_interrupted(double l0, int64_t step) {
  description_.average_l0 = l0;
  write_to(fmt::format("{}/interrupted/step_{}", run_folder_, step));
}

void TrainedSae::add_evaluation(double l0, const nlohmann::ordered_json& evaluation) {
  description_.average_l0 = l0;
  write_file(path_ + "/eval.json", evaluation.dump(1) + "\n");
  write_sae_description(path_, folded_, description_);
  const std::string better = named(l0);
  if (better == path_) return;
  std::error_code error;
  fs::rename(path_, better, error);
  if (error) throw Error(fmt::format("cannot rename {} to {}: {}", path_, better, error.message()));
  path_ = better;
}

std::string TrainedSae::named(double l0) const {
  return fmt::format("{}/layer_{}/width_{}/average_l0_{:.0f}", run_folder_, description_.location.layer,
                     format_width(folded_.latents()), l0);
}

// All of it or nothing: a folder without its parameters would look like a result.
void TrainedSae::write_to(const std::string& path) {
  try {
    write_sae_folder(path, folded_, description_);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(path, ignored);
    for (fs::path p = fs::path(path).parent_path(); p != run_folder_ && fs::remove(p, ignored);) p = p.parent_path();
    throw;
  }
  path_ = path;
}

}  // namespace gsae
