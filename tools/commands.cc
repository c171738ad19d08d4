#include "tools/commands.h"

#include <CLI/CLI.hpp>

#include "tools/options.h"

namespace gsae {

void add_commands(CLI::App& app) {
  app.description("Trains sparse autoencoders on Gemma 2's activations.");
  app.name("gemma_sae");
  app.require_subcommand(1);
  add_train(app);
  add_eval(app);
  add_report(app);
  add_features(app);
  add_export(app);
  add_import(app);
  add_activations(app);
  add_generate(app);
  add_tokenize(app);
  add_info(app);
  add_bench(app);
  add_plan(app);
  add_doctor(app);
  add_reference(app);
}

}  // namespace gsae
