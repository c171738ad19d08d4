#include "tools/dashboard_pass.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "io/hub.h"
#include "tools/locate_sae.h"

namespace gsae {

void DashboardPassOptions::add(CLI::App& command) {
  data.dtype = "f32";  // what is shown should not depend on the rounding of the model
  data.add(command);
  command.add_option("--layer", layer, "where the SAE reads, if its file does not say");
  command.add_option("--site", site, "pre, att, attn_out, mlp_in, mlp or res, if its file does not say");
  command.add_option("--tokens", tokens, "of text that examples are collected from")->capture_default_str();
  command.add_option("--split", split, "heldout: what training with the same --eval-fraction leaves out; or all")
      ->check(CLI::IsMember({"heldout", "all"}))
      ->capture_default_str();
  common.add(command);
}

DashboardPass run_dashboard_pass(Context& ctx, const DashboardPassOptions& o, const DataOptions& data,
                                 const std::vector<SaeFile>& saes, DashboardOptions options, Progress& progress) {
  constexpr int64_t kMostTokens = int64_t{1} << 30;  // rows are numbered by 31 bits
  options.tokens = parse_whole("--tokens", o.tokens, 1, kMostTokens);
  options.seed = o.common.seed;
  for (const SaeFile& sae : saes) require_latents(options.choice, sae.latents, sae.path);
  const std::string dir = find_model(data.model);
  const Gemma2 model(ctx, dir, data.compute());
  DashboardPass pass{.model = data.model, .data = {}, .split = o.split, .targets = {}, .saes = {}, .texts = {}};
  for (const SaeFile& sae : saes) pass.targets.push_back(locate_sae(sae, o.layer, o.site, model, data.model));
  pass.texts.emplace(dir + "/tokenizer.model", model.config().vocab);

  TokenStreamOptions s = data.stream(dir, model.config(), o.common);
  s.split = o.split == "all" ? TokenStreamOptions::Split::kAll : TokenStreamOptions::Split::kHeldOut;
  s.shuffle = true;  // corpora are often sorted by source: the first contexts would stand for one of them
  pass.data = s.files;
  TokenStream stream(s);
  pass.saes = make_dashboards(ctx, model, stream, pass.targets, options, progress);
  const int64_t seen = pass.saes.empty() ? options.tokens : pass.saes[0].contexts * pass.saes[0].context;
  if (seen < options.tokens)
    progress.note(fmt::format("the data hold {} tokens in whole contexts of the {} asked for; all of them were used",
                              seen, options.tokens));
  if (const auto done = stream.statistics(); done.skipped > 0)
    progress.note(fmt::format("skipped {} malformed documents, the first {}", done.skipped, done.first_skipped));
  return pass;
}

}  // namespace gsae
