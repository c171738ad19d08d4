#include "sae/unit_decoder.h"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "kernels/check.h"

namespace gsae {

DecoderNorms fold_decoder_norms(const SaeParameters& p) {
  const int64_t d = p.width(), latents = p.latents();
  float *W_enc = p.W_enc.data<float>(), *W_dec = p.W_dec.data<float>();
  float *b_enc = p.b_enc.data<float>(), *threshold = p.threshold.data<float>();
  DecoderNorms norms;
  std::vector<double> scale(static_cast<size_t>(latents), 1);
  for (int64_t i = 0; i < latents; ++i) {
    double square = 0;
    for (int64_t c = 0; c < d; ++c) square += double(W_dec[i * d + c]) * double(W_dec[i * d + c]);
    const double norm = std::sqrt(square);
    if (norm == 0) ++norms.zero;
    if (norm == 0 || std::fabs(norm - 1) <= kDecoderNormTolerance) continue;
    if (norms.folded++ == 0 || std::fabs(std::log(norm)) > std::fabs(std::log(norms.furthest)))
      norms.furthest = norm, norms.furthest_of = i;
    scale[i] = norm;
    for (int64_t c = 0; c < d; ++c) W_dec[i * d + c] = static_cast<float>(W_dec[i * d + c] / norm);
  }
  if (norms.folded == 0) return norms;
  // A weight may become as small as it likes; a threshold that vanishes, or a number that overflows, would be another
  // SAE.
  const auto fold = [&](float& v, int64_t i) {
    const auto scaled = static_cast<float>(v * scale[i]);
    if (!std::isfinite(scaled) || (&v == threshold + i && v > 0 && scaled == 0))
      throw Error(fmt::format(
          "the decoder row of latent {} has norm {:g}: folded into its encoder, {:g} would leave the range of f32", i,
          scale[i], v));
    v = scaled;
  };
  for (int64_t c = 0; c < d; ++c)
    for (int64_t i = 0; i < latents; ++i) fold(W_enc[c * latents + i], i);
  for (int64_t i = 0; i < latents; ++i) fold(b_enc[i], i), fold(threshold[i], i);
  return norms;
}

}  // namespace gsae
