// tools/run_file and tools/given_options: run.json of a run, and its options as `train --resume` takes them.
#include "tools/run_file.h"

#include <CLI/CLI.hpp>

#include "tests/fuzz/fuzz.h"
#include "tools/train_options.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  static const std::string path = test::fuzz_folder() / "run.json";
  test::write_bytes(path, test::text_of(data, size));
  test::may_refuse([] {
    const RunFile file = read_run_file(test::fuzz_folder().path());
    CLI::App command("", "train");
    TrainOptions options;
    options.add(command);
    try {
      add_given(command, file.given);
      plan_training(options);
    } catch (const CLI::ParseError&) {  // main() says it, with exit status 2
    }
  });
  return 0;
}
