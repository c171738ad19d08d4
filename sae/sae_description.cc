#include "sae/sae_description.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "io/mapped_file.h"
#include "io/npz.h"
#include "io/output_file.h"
#include "kernels/check.h"
#include "sae/sae_json.h"

namespace gsae {

namespace fs = std::filesystem;

namespace {

std::vector<float> read_density(const std::string& path, int64_t latents) {
  const MappedFile file(path);
  const NpyHeader h = parse_npy(path, file.data(), file.size());
  if (h.descr != "<f4" || h.shape != std::vector<int64_t>{latents} || file.size() - h.data_offset != h.bytes())
    throw Error(
        fmt::format("{}: holds {}({}) in {} bytes, not the densities of {} latents, <f4({}); remove it: it "
                    "is only shown",
                    path, h.descr, fmt::join(h.shape, ", "), file.size(), latents, latents));
  std::vector<float> density(static_cast<size_t>(latents));
  std::memcpy(density.data(), file.data() + h.data_offset, h.bytes());
  for (size_t i = 0; i < density.size(); ++i)
    if (!(density[i] >= 0 && density[i] <= 1))
      throw Error(fmt::format("{}: the density of latent {} is {}, not a part of one", path, i, density[i]));
  return density;
}

}  // namespace

void write_sae_description(const std::string& dir, const SaeParameters& params, const SaeDescription& s) {
  nlohmann::ordered_json j{{"architecture", "jumprelu"}, {"dtype", "float32"}};
  const auto put = [&](const char* key, auto value) {
    if (value != decltype(value){}) j[key] = value;
  };
  put("sae", s.name);
  put("model", s.location.model);
  put("site", s.location.site);
  if (s.location.layer >= 0) j["layer"] = s.location.layer;
  j["width"] = params.width();
  j["latents"] = params.latents();
  put("preset", s.preset);
  put("l0", s.l0);
  put("lambda", s.lambda);
  put("average_l0", s.average_l0);
  put("tokens", s.tokens);
  put("context", s.context);
  if (s.seed) j["seed"] = *s.seed;
  put("input_scale", s.input_scale);
  j["version"] = GSAE_VERSION;
  if (!s.density.empty())
    write_npy(dir + "/density.npy", "<f4", {static_cast<int64_t>(s.density.size())}, s.density.data());
  write_file(dir + "/config.json", j.dump(1) + "\n");
}

SaeDescription read_sae_description(const std::string& dir, int64_t latents) {
  SaeDescription s;
  if (const fs::path config = fs::path(dir) / "config.json"; fs::exists(config)) {
    const nlohmann::json j = read_object(config.string());
    s.location = {.model = text_in(j, "model"), .site = text_in(j, "site"), .layer = integer_in(j, "layer", -1)};
    if (!s.location.site.empty() && !is_site(s.location.site))
      throw Error(fmt::format("{}: site \"{}\" is none of pre, att, attn_out, mlp_in, mlp, res", config.string(),
                              s.location.site));
    s.name = text_in(j, "sae"), s.preset = text_in(j, "preset");
    s.l0 = number_in(j, "l0"), s.lambda = number_in(j, "lambda"), s.average_l0 = number_in(j, "average_l0");
    s.tokens = integer_in(j, "tokens", 0), s.context = integer_in(j, "context", 0);
    s.input_scale = number_in(j, "input_scale");
    if (const auto seed = j.find("seed"); seed != j.end() && seed->is_number_unsigned()) s.seed = seed->get<uint64_t>();
  }
  s.location.complete(location_of_path(fs::absolute(dir).string()));
  if (const fs::path density = fs::path(dir) / "density.npy"; fs::exists(density))
    s.density = read_density(density.string(), latents);
  return s;
}

}  // namespace gsae
