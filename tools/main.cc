#include <fmt/format.h>

#include <new>

#include "tools/interrupt.h"
#include "tools/options.h"

// Exit status: 0; 1 for what went wrong; 2 for a command line that cannot be meant.
int main(int argc, char** argv) {
  CLI::App app("Trains sparse autoencoders on Gemma 2's activations.", "gemma_sae");
  app.set_version_flag("--version", std::string("gemma_sae ") + GSAE_VERSION);
  app.require_subcommand(1);
  gsae::add_train(app);
  gsae::add_eval(app);
  gsae::add_activations(app);
  gsae::add_tokenize(app);
  gsae::add_info(app);
  gsae::add_doctor(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const gsae::UsageError& e) {
    fmt::print(stderr, "gemma_sae: {}\n", e.what());
    return 2;
  } catch (const gsae::Interrupted& e) {
    fmt::print(stderr, "gemma_sae: {}\n", e.what());
    return 128 + gsae::interrupted();
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "gemma_sae: out of memory: use a smaller --buffer, --batch or --width\n");
    return 1;
  } catch (const std::exception& e) {
    fmt::print(stderr, "gemma_sae: {}\n", e.what());
    return 1;
  }
}
