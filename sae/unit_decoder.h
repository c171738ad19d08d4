#pragma once

#include <cstdint>

#include "sae/sae_parameters.h"

namespace gsae {

// How far the rows of a decoder were from norm 1.
struct DecoderNorms {
  int64_t folded = 0;       // rows that were farther from it than kDecoderNormTolerance
  int64_t zero = 0;         // rows without a direction, which stay
  double furthest = 1;      // the norm farthest from 1 of those that were folded
  int64_t furthest_of = 0;  // its latent
};

constexpr double kDecoderNormTolerance = 1e-6;

// Gives each row of W_dec norm 1 and its latent the other side of it: for a row of norm s, W_dec / s, and W_enc, b_enc
// and threshold times s. f is s times what it was, x_hat the same. Rows within the tolerance stay as they are, to the
// bit. In place, on the cpu; norms in f64. An Error for a norm that takes the latent's encoder out of f32's range.
DecoderNorms fold_decoder_norms(const SaeParameters& params);

}  // namespace gsae
