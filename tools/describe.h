#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace gsae {

// What a file or folder holds, as a JSON object that begins with `path` and `kind`:
//
//   safetensors   metadata, tensors (name, dtype, shape, bytes)
//   npz           arrays (name, dtype, shape, bytes, stored_bytes)
//   npy           dtype, shape
//   torch         .pt: arrays
//   model         a Hugging Face checkpoint: its config's sizes, files, parameters, what is missing
//   sae           in any format of sae/sae_file.h: d, latents, where it belongs, its config and evaluation
//   run           a training run: config, last line of the log, results
//   folder        the SAEs and data files below it
//
// Reads headers, never elements. An Error if there is nothing here that this program knows, or if a
// file is damaged.
nlohmann::ordered_json describe(const std::string& path);

// The part for a folder with a model's config.json; damage of its files is reported, not thrown.
nlohmann::ordered_json describe_model(const std::string& dir);
bool is_model_folder(const std::string& dir);

// For people: one line per value, tables for lists of objects. Control characters become '?'.
std::string render(const nlohmann::ordered_json& description);

}  // namespace gsae
