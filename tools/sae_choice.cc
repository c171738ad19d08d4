#include "tools/sae_choice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "tools/data_options.h"

namespace gsae {

namespace {

namespace fs = std::filesystem;

// Some of the SAEs of a folder, for a message.
std::string names_of(const std::string& folder, const std::vector<SaeFile>& saes) {
  constexpr size_t kMost = 8;
  std::vector<std::string> names;
  for (const SaeFile& sae : saes) {
    if (names.size() == kMost) {
      names.push_back("...");
      break;
    }
    names.push_back(sae.name.empty() ? sae.path : (fs::path(folder) / sae.name).string());
  }
  return fmt::format("{}", fmt::join(names, "\n  "));
}

}  // namespace

SaeFile choose_sae(const std::string& path) {
  if (fs::exists(path)) {
    const std::vector<SaeFile> saes = list_saes(path);
    if (saes.size() == 1) return saes[0];
    throw Error(fmt::format("{} holds {} SAEs; name one of them:\n  {}", path, saes.size(), names_of(path, saes)));
  }
  // RUN/NAME, where a name has slashes of its own. Other folders are not searched: a slip of the hand would go through
  // all that is below them.
  const fs::path whole(path);
  for (fs::path run = whole.parent_path(); !run.empty() && run != run.root_path(); run = run.parent_path()) {
    if (!fs::exists(run / "run.json")) continue;
    const std::string name = whole.lexically_relative(run).generic_string();
    const std::vector<SaeFile> saes = list_saes(run.string());
    for (const SaeFile& sae : saes)
      if (sae.name == name) return sae;
    throw Error(fmt::format("{}: no SAE in {} is named {}; there are:\n  {}", path, run.string(), name,
                            names_of(run.string(), saes)));
  }
  throw Error(fmt::format("{}: there is no such file or folder", path));
}

SaePlace place_of(const SaeFile& sae, const Gemma2& model, const std::string& model_name, const std::string& layer,
                  const std::string& site) {
  if (sae.location.layer < 0 && layer.empty())
    throw UsageError(fmt::format("{}: its file does not say which layer it reads; give --layer", sae.path));
  if (sae.location.site.empty() && site.empty())
    throw UsageError(fmt::format("{}: its file does not say which site it reads; give --site", sae.path));
  SaePlace place{.layer = sae.location.layer};
  if (place.layer < 0) {
    const auto layers = parse_layers(layer, model.config());
    if (layers.size() != 1) throw UsageError(fmt::format("--layer {}: an SAE reads one layer", layer));
    place.layer = layers[0];
  }
  if (place.layer >= model.config().layers)
    throw Error(fmt::format("{}: reads layer {}, but {} has layers 0 to {}{}", sae.path, place.layer, model_name,
                            model.config().layers - 1,
                            sae.location.model.empty() ? "" : "; it was trained on " + sae.location.model));
  const auto sites = parse_sites(sae.location.site.empty() ? site : sae.location.site);
  if (sites.size() != 1) throw UsageError(fmt::format("--site {}: an SAE reads one site", site));
  place.site = sites[0];
  if (sae.width != model.site_width(place.site))
    throw Error(fmt::format("{}: reads activations of width {}, but site {} of {} has width {}{}", sae.path, sae.width,
                            name(place.site), model_name, model.site_width(place.site),
                            sae.location.model.empty() ? "" : "; it was trained on " + sae.location.model));
  return place;
}

}  // namespace gsae
