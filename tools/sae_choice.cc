#include "tools/sae_choice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "tools/locate_sae.h"
#include "tools/options.h"

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
  const EvaluationTarget at =
      locate_sae(sae, sae.location.layer < 0 ? layer : "", sae.location.site.empty() ? site : "", model, model_name);
  return {at.site, at.layer};
}

void require_use_of_place(const std::vector<ChosenSae>& saes, const std::string& layer, const std::string& site) {
  const SaeLocation given = located(SaeFile{}, layer, site);  // which reads them
  const auto require = [&](const char* option, const std::string& value, const std::string& l, const std::string& s,
                           const auto& takes) {
    if (value.empty()) return;
    if (saes.empty())
      throw UsageError(fmt::format("{} {}: there is no SAE that it is about; leave it out", option, value));
    if (std::none_of(saes.begin(), saes.end(), [&](const ChosenSae& sae) { return takes(sae.file.location); }))
      located(saes[0].file, l, s);  // says what contradicts it
  };
  require("--layer", layer, layer, "", [&](const SaeLocation& l) { return l.layer < 0 || l.layer == given.layer; });
  require("--site", site, "", site, [&](const SaeLocation& l) { return l.site.empty() || l.site == given.site; });
}

}  // namespace gsae
