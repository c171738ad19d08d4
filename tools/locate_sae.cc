#include "tools/locate_sae.h"

#include <fmt/format.h>

#include "tools/data_options.h"

namespace gsae {

EvaluationTarget locate_sae(const SaeFile& sae, const std::string& layer, const std::string& site, const Gemma2& model,
                            const std::string& model_name) {
  if (layer.empty() && sae.location.layer < 0)
    throw UsageError(fmt::format("{}: its file does not say which layer it reads; give --layer", sae.path));
  if (site.empty() && sae.location.site.empty())
    throw UsageError(fmt::format("{}: its file does not say which site it reads; give --site", sae.path));
  const std::string trained_on = sae.location.model.empty() ? "" : "; it was trained on " + sae.location.model;
  if (layer.empty() && sae.location.layer >= model.config().layers)
    throw Error(fmt::format("{}: reads layer {}, but {} has layers 0 to {}{}", sae.path, sae.location.layer, model_name,
                            model.config().layers - 1, trained_on));
  const auto layers = parse_layers(layer.empty() ? std::to_string(sae.location.layer) : layer, model.config());
  const auto sites = parse_sites(site.empty() ? sae.location.site : site);
  if (layers.size() != 1 || sites.size() != 1)
    throw UsageError("--layer and --site: an SAE reads one layer and one site");
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
