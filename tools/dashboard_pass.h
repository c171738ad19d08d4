#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/data_options.h"
#include "tools/latent_dashboards.h"
#include "tools/token_text.h"

namespace gsae {

// The options of the commands that look at latents: which, over how much of which text.
struct DashboardPassOptions {
  CommonOptions common;
  DataOptions data;
  std::string layer, site, split = "heldout", tokens = "1M";

  void add(CLI::App& command);
};

// Dashboards of some SAEs of one model.
struct DashboardPass {
  std::string model;              // as it is named
  std::vector<std::string> data;  // files
  std::string split;
  std::vector<EvaluationTarget> targets;  // where the SAEs are
  std::vector<SaeDashboards> saes;        // theirs
  std::optional<TokenTexts> texts;        // of the tokens
};

// Loads the model and looks at the SAEs. `data` is what o.data has become by the defaults of a run.
DashboardPass run_dashboard_pass(Context& ctx, const DashboardPassOptions& o, const DataOptions& data,
                                 const std::vector<SaeFile>& saes, DashboardOptions options, Progress& progress);

}  // namespace gsae
