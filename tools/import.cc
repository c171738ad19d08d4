#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <memory>

#include "sae/sae_file.h"
#include "tools/convert.h"

namespace gsae {

void add_import(CLI::App& app) {
  auto c = std::make_shared<Conversion>();
  c->format = kOurFormat;
  CLI::App* command = app.add_subcommand("import", "reads SAEs of other tools into folders of ours (docs/formats.md)");
  command->add_option("--from", c->from, "an SAE's file or folder, or a folder that holds some, all of them")
      ->required();
  command
      ->add_option("--format", c->from_format,
                   fmt::format("what it is, if it does not show: {}", fmt::join(sae_formats(), ", ")))
      ->check(CLI::IsMember(sae_formats()));
  command->add_option("--out", c->out, "a new folder; of several SAEs, each in the folder it has below --from")
      ->required();
  command->add_option("--model", c->model, "the model that the SAE reads; what its file says");
  command->add_option("--layer", c->layer, "where the SAE reads, if its file does not say");
  command->add_option("--site", c->site, "pre, att, attn_out, mlp_in, mlp or res, if its file does not say");
  c->common.add(*command);
  command->callback([c] { convert(*c); });
}

}  // namespace gsae
