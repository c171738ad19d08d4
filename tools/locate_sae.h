#pragma once

#include <string>

#include "model/gemma2.h"
#include "sae/sae_file.h"
#include "tools/evaluate.h"

namespace gsae {

// Where an SAE reads, by its file and by what the command line says (`layer`, `site`; empty: nothing). A UsageError
// names both sides if they contradict each other; an Error if its file says that it reads what is no site of ours.
SaeLocation located(const SaeFile& sae, const std::string& layer, const std::string& site);

// Whether its file names a model, and `model` (a name or a path) does not look like that one.
bool may_be_of_another(const SaeFile& sae, const std::string& model);

// Where it reads in this model. A UsageError if neither says it; an Error, which names the SAE and the model, if the
// model has no such layer or its site another width.
EvaluationTarget locate_sae(const SaeFile& sae, const std::string& layer, const std::string& site, const Gemma2& model,
                            const std::string& model_name);

}  // namespace gsae
