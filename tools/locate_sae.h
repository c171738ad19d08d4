#pragma once

#include <string>

#include "model/gemma2.h"
#include "sae/sae_file.h"
#include "tools/evaluate.h"

namespace gsae {

// Where an SAE reads in this model: what the command line says (`layer`, `site`; empty: nothing) goes before what its
// file says. A UsageError if neither says it; an Error, which names the SAE and the model, if its width is not that of
// the site.
EvaluationTarget locate_sae(const SaeFile& sae, const std::string& layer, const std::string& site, const Gemma2& model,
                            const std::string& model_name);

}  // namespace gsae
