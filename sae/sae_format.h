#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sae/sae_file.h"

namespace gsae {

// One of the formats that SAEs come in: sae/format_NAME.cc, docs/formats.md. For sae_file.cc alone.
struct SaeFormat {
  std::string_view name;
  std::string_view files;  // what a folder of it holds, for messages
  // The SAEs that lie in this folder itself, as paths for list() and load().
  std::vector<std::string> (*find)(const std::string& dir);
  // Whether this file is (part of) one; it has been seen to exist. Then path is what list() and load() take.
  bool (*takes)(const std::string& file, std::string& path);
  SaeFile (*list)(const std::string& path);
  LoadedSae (*load)(const std::string& path);
  // What its files say beside the parameters, of an SAE that list() has found.
  SaeDescription (*describe)(const SaeFile& sae);
  // the file that holds them, where that is not `path` itself
  std::string (*parameters)(const std::string& path) = [](const std::string& path) { return path; };
  // Into a folder that is there. nullptr: read only.
  void (*write)(const std::string& dir, const SaeParameters& params, const SaeDescription& description);
};

extern const SaeFormat kGemmaScope, kGemmaScope2, kSaeLens, kDictionaryLearning, kCircuitTracer;

// What the formats share.

using SaeShape = std::vector<int64_t>;

struct SaeMember {
  const char* name;  // as in Gemma Scope's files
  Tensor tensor;
};
std::array<SaeMember, 5> members(const SaeParameters& p);
SaeShape shape_of(const Tensor& t);

// An Error unless it is (d, latents), both of a size that can be meant; transposed: (latents, d).
void check_w_enc(const std::string& path, const SaeShape& w_enc, bool transposed = false);
// Memory for an SAE of this shape of W_enc (d, latents), which is checked.
LoadedSae allocate_sae(const std::string& path, const SaeShape& w_enc);
void expect_shape(const std::string& path, const std::string& name, const SaeShape& got, const SaeShape& want);
// An Error for NaN, infinity, negative thresholds.
void check_values(const LoadedSae& sae);
// An Error for a missing array, which lists those that are there.
[[noreturn]] void miss_array(const std::string& path, const std::string& name, const std::vector<std::string>& names);
// An Error if the folders say that it is one.
void refuse_transcoder(const std::string& path);
[[noreturn]] void refuse_architecture(const std::string& path, const std::string& architecture);

// What a format has to be told before it can be written: an Error names what is not known.
void require_place(const SaeDescription& description, std::string_view format);

// The folder that a file lies in, "." for a bare name.
std::string folder_of(const std::string& path);

// {path} if it is a file, else nothing.
std::vector<std::string> if_file(const std::string& path);

}  // namespace gsae
