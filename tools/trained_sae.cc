#include "tools/trained_sae.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/output_file.h"
#include "sae/sae_trainer.h"
#include "tools/lay_out.h"
#include "tools/options.h"

namespace gsae {

namespace fs = std::filesystem;

TrainedSae::TrainedSae(const Folder& folder, const SaeDescription& description, int64_t latents)
    : folder_(folder), description_(description), latents_(latents) {}

void TrainedSae::write(Context& ctx, const SaeState& trained, double l0) {
  description_.average_l0 = l0;
  write_to(ctx, trained, unused_l0_folder(parent(folder_.run), l0));
}

void TrainedSae::write_interrupted(Context& ctx, const SaeState& trained, double l0, int64_t step) {
  description_.average_l0 = l0;
  const std::string dir = fmt::format("{}/interrupted/step_{}", folder_.run, step);
  write_to(ctx, trained, folder_.alone ? dir : unused_l0_folder(parent(dir), l0));
}

std::string TrainedSae::find() const {
  std::error_code error;
  for (fs::directory_iterator i(parent(folder_.run), error), end; !error && i != end; i.increment(error)) {
    const std::string path = i->path().string();
    if (!i->path().filename().string().starts_with("average_l0_")) continue;
    try {
      if (read_json(path + "/config.json").at("sae") == description_.name) return path;
    } catch (const std::exception&) {  // another's, or half-written
    }
  }
  return {};
}

void TrainedSae::discard() const {
  std::error_code error;
  std::vector<fs::path> left;
  if (const std::string path = find(); !path.empty()) left.emplace_back(path);
  for (fs::directory_iterator i(parent(folder_.run), error), end; !error && i != end; i.increment(error))
    if (std::error_code ignored; i->path().filename().string().starts_with("average_l0_") &&
                                 !fs::exists(i->path() / "config.json", ignored))  // the last that is written
      left.push_back(i->path());
  for (const fs::path& path : left) fs::remove_all(path, error);
}

void TrainedSae::adopt(const std::string& path, int64_t width, double l0) {
  path_ = path, width_ = width;
  description_.average_l0 = l0;
}

EvaluationTarget TrainedSae::target() const {
  const SaeFile file{path_ + "/params.npz", description_.location, width_, latents_,
                     description_.name,     description_.l0};
  return {.name = file.name,
          .site = parse_site(file.location.site),
          .layer = file.location.layer,
          .width = file.width,
          .latents = file.latents,
          .l0 = file.l0,
          .load = [file] { return load_sae(file); }};
}

void TrainedSae::add_evaluation(double l0, std::vector<float> density, const nlohmann::ordered_json& evaluation) {
  description_.average_l0 = l0;
  description_.density = std::move(density);
  write_file(path_ + "/eval.json", evaluation.dump(1) + "\n");
  Arena shapes;
  write_sae_description(path_, SaeParameters(shapes, width_, latents_), description_);
  const std::string better = unused_l0_folder(parent(folder_.run), l0, path_);
  if (better == path_) return;
  std::error_code error;
  fs::rename(path_, better, error);
  if (error) throw Error(fmt::format("cannot rename {} to {}: {}", path_, better, error.message()));
  path_ = better;
}

std::string TrainedSae::parent(const std::string& dir) const {
  return fmt::format("{}{}/layer_{}/width_{}", dir, folder_.several_sites ? "/" + description_.location.site : "",
                     description_.location.layer, format_width(latents_));
}

// All of it or nothing: a folder without its parameters would look like a result.
void TrainedSae::write_to(Context& ctx, const SaeState& trained, const std::string& path) {
  width_ = trained.width();
  Buffer memory;
  const auto folded = allocate<SaeParameters>(Device::kCpu, memory, width_, latents_);
  fold(ctx, *folded, trained, description_.input_scale);
  try {
    write_sae_folder(path, *folded, description_);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(path, ignored);
    for (fs::path p = fs::path(path).parent_path(); p != folder_.run && fs::remove(p, ignored);) p = p.parent_path();
    throw;
  }
  path_ = path;
}

std::string unused_l0_folder(const std::string& parent, double l0, const std::string& own) {
  constexpr int kMostDecimals = 4;
  const auto is_free = [&](const std::string& path) {
    std::error_code ignored;
    return path == own || !fs::exists(fs::symlink_status(path, ignored));
  };
  std::string path;
  for (int decimals = 0; decimals <= kMostDecimals; ++decimals) {
    path = fmt::format("{}/average_l0_{:.{}f}", parent, l0, decimals);
    if (is_free(path)) return path;
  }
  path = fmt::format("{}/average_l0_{:.0f}", parent, l0);
  for (int64_t number = 2;; ++number)
    if (const std::string numbered = fmt::format("{}_{}", path, number); is_free(numbered)) return numbered;
}

}  // namespace gsae
