#include "tools/locate_sae.h"

#include <fmt/format.h>

#include <cctype>

#include "tools/data_options.h"

namespace gsae {

SaeLocation located(const SaeFile& sae, const std::string& layer, const std::string& site) {
  SaeLocation at = sae.location;
  if (!at.elsewhere.empty())
    throw Error(
        fmt::format("{}: its file says that it reads {}, which is none of the sites pre, att, attn_out, mlp_in, "
                    "mlp and res",
                    sae.path, at.elsewhere));
  if (!site.empty()) {
    const auto sites = parse_sites(site);
    if (sites.size() != 1) throw UsageError(fmt::format("--site {}: an SAE reads one site", site));
    const std::string given = name(sites[0]);
    if (!at.site.empty() && at.site != given)
      throw UsageError(fmt::format("--site {}, but {} reads site {}", given, sae.path, at.site));
    at.site = given;
  }
  if (!layer.empty()) {
    const int64_t given = parse_whole("--layer", layer, 0, 1'000'000);
    if (at.layer >= 0 && at.layer != given)
      throw UsageError(fmt::format("--layer {}, but {} reads layer {}", given, sae.path, at.layer));
    at.layer = given;
  }
  return at;
}

bool may_be_of_another(const SaeFile& sae, const std::string& model) {
  const auto lower = [](std::string s) {
    for (char& c : s) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return s;
  };
  const std::string& said = sae.location.model;
  return !said.empty() && lower(model).find(lower(said.substr(said.rfind('/') + 1))) == std::string::npos;
}

EvaluationTarget locate_sae(const SaeFile& sae, const std::string& layer, const std::string& site, const Gemma2& model,
                            const std::string& model_name) {
  const SaeLocation at = located(sae, layer, site);
  if (at.layer < 0)
    throw UsageError(fmt::format("{}: its file does not say which layer it reads; give --layer", sae.path));
  if (at.site.empty())
    throw UsageError(fmt::format("{}: its file does not say which site it reads; give --site", sae.path));
  const std::string trained_on = sae.location.model.empty() ? "" : "; it was trained on " + sae.location.model;
  if (at.layer >= model.config().layers) {
    const std::string why = fmt::format("{}: reads layer {}, but {} has layers 0 to {}{}", sae.path, at.layer,
                                        model_name, model.config().layers - 1, trained_on);
    if (layer.empty()) throw Error(why);
    throw UsageError(fmt::format("--layer {}: {}", layer, why));
  }
  const auto layers = parse_layers(std::to_string(at.layer), model.config());
  const auto sites = parse_sites(at.site);
  if (sae.width != model.site_width(sites[0]))
    throw Error(fmt::format("{}: reads activations of width {}, but site {} of {} has width {}{}", sae.path, sae.width,
                            name(sites[0]), model_name, model.site_width(sites[0]), trained_on));
  return {.name = sae.name.empty() ? fmt::format("{}.{} {}", name(sites[0]), layers[0], format_width(sae.latents))
                                   : sae.name,
          .site = sites[0],
          .layer = layers[0],
          .width = sae.width,
          .latents = sae.latents,
          .l0 = sae.l0,
          .load = [sae] { return load_sae(sae); }};
}

}  // namespace gsae
