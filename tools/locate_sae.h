#pragma once

#include <string>

#include "model/gemma2.h"
#include "sae/sae_file.h"
#include "tools/evaluate.h"

namespace gsae {

// Where an SAE reads, by its file and by what the command line says (`layer`, `site`; empty: nothing). A UsageError
// names both sides if they contradict each other.
SaeLocation located(const SaeFile& sae, const std::string& layer, const std::string& site);

// The same in this model. A UsageError if neither says it; an Error, which names the SAE and the model, if the model
// has no such layer or its site another width.
EvaluationTarget locate_sae(const SaeFile& sae, const std::string& layer, const std::string& site, const Gemma2& model,
                            const std::string& model_name);

}  // namespace gsae
