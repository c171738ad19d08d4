#include "sae/sae_format.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "kernels/check.h"

namespace gsae {

namespace {
constexpr int64_t kLargestSide = int64_t{1} << 28;  // of any array: products of two stay below 2^63
}  // namespace

std::array<SaeMember, 5> members(const SaeParameters& p) {
  return {{{"W_enc", p.W_enc}, {"W_dec", p.W_dec}, {"b_enc", p.b_enc}, {"b_dec", p.b_dec}, {"threshold", p.threshold}}};
}

SaeShape shape_of(const Tensor& t) { return {t.dim.begin(), t.dim.begin() + t.rank}; }

void check_w_enc(const std::string& path, const SaeShape& w_enc, bool transposed) {
  if (w_enc.size() != 2 || std::any_of(w_enc.begin(), w_enc.end(), [](int64_t n) { return n < 1 || n > kLargestSide; }))
    throw Error(fmt::format("{}: W_enc has shape ({}), not ({})", path, fmt::join(w_enc, ", "),
                            transposed ? "latents, d" : "d, latents"));
}

LoadedSae allocate_sae(const std::string& path, const SaeShape& w_enc) {
  check_w_enc(path, w_enc);
  Arena plan;
  SaeParameters(plan, w_enc[0], w_enc[1]);
  LoadedSae sae;
  sae.path = path;
  sae.memory = Buffer(Device::kCpu, plan.used());
  Arena arena(sae.memory);
  sae.params = SaeParameters(arena, w_enc[0], w_enc[1]);
  return sae;
}

void expect_shape(const std::string& path, const std::string& name, const SaeShape& got, const SaeShape& want) {
  if (got != want)
    throw Error(fmt::format("{}: {} has shape ({}), but W_enc asks for ({})", path, name, fmt::join(got, ", "),
                            fmt::join(want, ", ")));
}

void check_values(const LoadedSae& sae) {
  for (const auto& [name, tensor] : members(sae.params)) {
    const float* v = tensor.data<float>();
    const int64_t n = tensor.size();
    for (int64_t i = 0; i < n; ++i)
      if (!std::isfinite(v[i])) throw Error(fmt::format("{}: {} is {} at element {}", sae.path, name, v[i], i));
  }
  const float* theta = sae.params.threshold.data<float>();
  for (int64_t i = 0; i < sae.params.latents(); ++i)
    if (theta[i] < 0)
      throw Error(fmt::format("{}: the threshold of latent {} is {}: it must not be negative", sae.path, i, theta[i]));
}

void miss_array(const std::string& path, const std::string& name, const std::vector<std::string>& names) {
  throw Error(
      fmt::format("{}: has no array {}: a JumpReLU SAE has an encoder, a decoder, their biases and a threshold; "
                  "this file {}",
                  path, name, names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
}

void refuse_transcoder(const std::string& path) {
  if (is_transcoder_path(std::filesystem::absolute(path).string()))
    throw Error(fmt::format(
        "{}: is a transcoder, which reconstructs another site than the one it reads; only SAEs can be read", path));
}

void refuse_architecture(const std::string& path, const std::string& architecture) {
  throw Error(fmt::format("{}: architecture '{}' is not supported; only jumprelu is", path, architecture));
}

void require_place(const SaeDescription& s, std::string_view format) {
  const auto miss = [&](const char* what, const char* option) {
    throw Error(fmt::format("the format {} says which {} an SAE reads, and this one's file does not; give {}", format,
                            what, option));
  };
  if (s.location.model.empty()) miss("model", "--model");
  if (s.location.layer < 0) miss("layer", "--layer");
  if (s.location.site.empty()) miss("site", "--site");
}

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

std::vector<std::string> if_file(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return {};
  return {path};
}

}  // namespace gsae
