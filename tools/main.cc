#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <new>

#include "tools/commands.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/options.h"

namespace {
void complain(const char* what) { gsae::print(stderr, fmt::format("gemma_sae: {}\n", what)); }
}  // namespace

// Exit status: 0; 1 for what went wrong; 2 for a command line that cannot be meant.
int main(int argc, char** argv) {
  gsae::open_standard_streams();
  gsae::ignore_write_signals(false);
  CLI::App app;
  app.set_version_flag("--version", std::string("gemma_sae ") + GSAE_VERSION);
  gsae::add_commands(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const gsae::UsageError& e) {
    complain(e.what());
    return 2;
  } catch (const gsae::Interrupted& e) {
    complain(e.what());
    return 128 + gsae::interrupted();
  } catch (const std::bad_alloc&) {
    complain("out of memory: use a smaller --buffer, --batch or --width");
    return 1;
  } catch (const std::exception& e) {
    complain(e.what());
    return 1;
  }
}
