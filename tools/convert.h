#pragma once

#include <string>

#include "sae/sae_file.h"
#include "tools/options.h"

namespace gsae {

// Whose files lie in a run's folders: what `import` writes.
constexpr const char* kOurFormat = "gemma-scope";

// What `export` and `import` have in common: SAEs of one format, or a folder full of them, written in another.
struct Conversion {
  CommonOptions common;
  std::string from;         // a file or folder, as load_saes() takes it
  std::string from_format;  // empty: what it looks like
  std::string out, format;
  std::string model, site, layer;  // where they read, if their files do not say; the model's name also if they do
};

// Writes each SAE folded, with decoder rows of norm 1. One SAE is written to OUT itself, several each to the folder
// below OUT that it has below FROM. OUT is new or empty. What is folded is said, on stderr; a line for each SAE goes to
// stdout. An SAE that cannot be written leaves nothing behind; those before it stay.
void convert(const Conversion& conversion);

}  // namespace gsae
