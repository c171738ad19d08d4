#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "kernels/memory.h"
#include "sae/sae_description.h"
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

// The formats that SAEs are read from, and of those that are written; docs/formats.md describes each:
//   gemma-scope          params.npz: W_enc (d, F), W_dec (F, d), b_enc (F), b_dec (d), threshold (F), any float dtype;
//                        with our config.json beside it, if there is one
//   gemma-scope-2        params.safetensors: the same in lower case, with config.json; read only
//   saelens              a folder with cfg.json and sae_weights.safetensors, architecture jumprelu
//   dictionary-learning  ae.pt, a JumpReluAutoEncoder, with config.json
//   circuit-tracer       layer_N.safetensors: W_enc (F, d), activation_function.threshold
std::vector<std::string> sae_formats(bool written = false);

std::string sae_file_names();  // what a folder of each holds, for messages

// Where an SAE lies, and in which format.
struct SaeSource {
  std::string path;  // what load_saes() reads it from, and it alone
  std::string format;
};
// Those directly in a folder, none below it. format: of this one only.
std::vector<SaeSource> saes_in(const std::string& dir, const std::string& format = "");
std::string parameters_file(const SaeSource& place);

// Reads an SAE from its file or folder; of a folder that holds SAEs, itself or up to six levels below, a whole training
// run for instance, all of them in the order of their paths, checkpoints/ left aside. A decoder bias that is subtracted
// from the input is folded: b_enc - b_dec W_enc. An Error names the file and what is wrong: missing arrays, shapes that
// do not fit each other, NaN or infinity, negative thresholds, an architecture or a normalisation that is not
// supported, a folder that cannot be read.
std::vector<LoadedSae> load_saes(const std::string& path);

// One of them without its parameters, to know what comes before there is room for it.
struct SaeFile {
  std::string path;  // what load_saes() reads it from, and it alone
  SaeLocation location;
  int64_t width = 0, latents = 0;  // d, F
  std::string name = {};           // that a training run gave it; empty: none
  double l0 = 0;                   // that it was trained for; 0: not said
  std::string format = {};         // empty: what it looks like
};
// What load_saes() would read, in its order; format: of this one only. What is wrong beyond a shape, a location or a
// setting is found by load_sae() alone.
std::vector<SaeFile> list_saes(const std::string& path, const std::string& format = "");
LoadedSae load_sae(const SaeFile& file);
// All that its files say beside the parameters.
SaeDescription describe_sae(const SaeFile& file);

// Uploads the parameters to the context's device, if they are not there.
void move_to_device(Context& ctx, LoadedSae& sae);

// Writes a folded SAE, on the cpu, into DIR, which is created; each file whole or not at all. An Error for a format
// that says what is not known of it.
void write_sae_folder(const std::string& dir, const SaeParameters& params, const SaeDescription& description,
                      const std::string& format = "gemma-scope");

}  // namespace gsae
