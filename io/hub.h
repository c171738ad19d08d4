#pragma once

#include <string>

namespace gsae {

// Where a model's files are. `model` is a folder, `demo` (the model bundled with the program), or a
// Hugging Face id such as google/gemma-2-2b, looked up in the local cache: $HF_HUB_CACHE, else
// $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub; there
// models--google--gemma-2-2b/refs/main names the snapshot (a revision can be given as id@revision).
// Nothing is downloaded: if it is not there the Error says which folder was searched, gives the
// download command, and `--model demo` as what can be tried now.
std::string find_model(const std::string& model);

// The name by which others can find a model: an id as it is; of a folder in a Hugging Face cache its id
// (.../models--google--gemma-2-2b/snapshots/REVISION: google/gemma-2-2b), of any other folder the last part of its path.
std::string public_name(const std::string& model);

// The folder of the bundled demo assets (model/ and corpus.jsonl.zst): $GSAE_DEMO, else demo/ or
// share/gemma_sae/demo beside the binary, else tools/demo of the source tree it was built from.
std::string demo_folder();

}  // namespace gsae
