#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "kernels/memory.h"
#include "sae/sae_location.h"
#include "sae/sae_parameters.h"

namespace gsae {

// A trained SAE as its file holds it: folded, for raw activations, f32.
struct LoadedSae {
  Buffer memory;
  SaeParameters params;  // in memory
  SaeLocation location;
  std::string path;  // of the file or folder it was read from
};

// Reads SAEs from
//   - params.npz of Gemma Scope or ours: W_enc (d, F), W_dec (F, d), b_enc (F), b_dec (d),
//     threshold (F), any float dtype; with our config.json beside it, if there is one
//   - a SAELens folder: cfg.json and sae_weights.safetensors, architecture jumprelu. A decoder bias
//     that is subtracted from the input is folded: b_enc - b_dec W_enc
//   - a folder that holds such files at any depth, a whole training run for instance: all of them
//     in the order of their paths, checkpoints/ left aside
// An Error names the file and what is wrong: missing arrays, shapes that do not fit each other,
// NaN or infinity, negative thresholds, an architecture or a normalisation that is not supported.
std::vector<LoadedSae> load_saes(const std::string& path);

// One of them without its parameters, to know what comes before there is room for it.
struct SaeFile {
  std::string path;  // what load_saes() reads it from, and it alone
  SaeLocation location;
  int64_t width = 0, latents = 0;  // d, F
  std::string name = {};           // that a training run gave it; empty: none
  double l0 = 0;                   // that it was trained for; 0: not said
};
// What load_saes() would read, in its order. What is wrong beyond a shape, a location or a setting is found by it
// alone.
std::vector<SaeFile> list_saes(const std::string& path);
LoadedSae load_sae(const SaeFile& file);

// Uploads the parameters to the context's device, if they are not there.
void move_to_device(Context& ctx, LoadedSae& sae);

// What config.json says beside params.npz. Zero or empty: not said.
struct SaeDescription {
  SaeLocation location;
  std::string name;  // in the run's train.jsonl
  std::string preset;
  double l0 = 0;          // asked for
  double lambda = 0;      // of the penalty at the end
  double average_l0 = 0;  // reached, on held-out text
  int64_t tokens = 0;     // trained on
  uint64_t seed = 0;
  double input_scale = 0;  // C, already folded into the parameters
};

// Writes DIR/params.npz and then DIR/config.json, each whole or not at all, creating DIR. `params`
// is folded and on the cpu.
void write_sae_folder(const std::string& dir, const SaeParameters& params, const SaeDescription& description);
// DIR/config.json alone: what is known about the SAE has changed.
void write_sae_description(const std::string& dir, const SaeParameters& params, const SaeDescription& description);

}  // namespace gsae
