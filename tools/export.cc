#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <memory>

#include "sae/sae_file.h"
#include "tools/convert.h"

namespace gsae {

void add_export(CLI::App& app) {
  auto c = std::make_shared<Conversion>();
  c->format = "gemma-scope";
  CLI::App* command = app.add_subcommand("export", "writes SAEs in the format of another tool (docs/formats.md)");
  command
      ->add_option("--sae", c->from, "an SAE in any of the formats, or a folder that holds some: a run's, all of them")
      ->required();
  command->add_option("--format", c->format, fmt::format("{}", fmt::join(sae_formats(true), ", ")))
      ->check(CLI::IsMember(sae_formats(true)))
      ->capture_default_str();
  command->add_option("--out", c->out, "a new folder; of several SAEs, each in the folder it has below --sae")
      ->required();
  command->add_option("--model", c->model, "the model's name, as others find it; what the SAE's file says");
  command->add_option("--layer", c->layer, "where the SAE reads, if its file does not say");
  command->add_option("--site", c->site, "pre, att, attn_out, mlp_in, mlp or res, if its file does not say");
  c->common.add(*command);
  command->callback([c] { convert(*c); });
}

}  // namespace gsae
