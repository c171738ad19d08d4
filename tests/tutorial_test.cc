// docs/tutorial.md as a newcomer would type it, in a folder of its own: every command works, one after the other, and
// leaves what the text says.
#include <filesystem>
#include <sstream>

#include "io/json.h"
#include "tests/files.h"
#include "tests/paths.h"
#include "tests/run_binary.h"
#include "tests/sanitized.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;

// The lines of the page that start the program, up to those for which one needs Gemma 2.
std::vector<std::string> commands_of_the_page() {
  std::vector<std::string> commands;
  std::istringstream page(read_bytes(source_file("docs/tutorial.md")));
  for (std::string line; std::getline(page, line) && line != "## With Gemma 2";) {
    if (line.rfind("    ./gemma_sae ", 0) != 0) continue;
    if (const size_t comment = line.find(" #"); comment != line.npos) line.resize(comment);
    commands.push_back(line.substr(4));
  }
  return commands;
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  if (const size_t at = text.find(from); at != text.npos) text.replace(at, from.size(), to);
}

TEST(Tutorial, EveryCommandWorks) {
  if (source_file("docs/tutorial.md").empty()) GTEST_SKIP() << "no source tree";
  if (kSanitized) GTEST_SKIP() << "minutes under the sanitizers: the plain build runs it";
  const TempFolder dir;
  const auto commands = commands_of_the_page();
  EXPECT_GE(commands.size(), 15u);
  for (std::string command : commands) {
    replace(command, "./gemma_sae", "'" + gemma_sae_binary() + "'");
    for (const char* tokens : {"--tokens 2M", "--tokens 1M"}) replace(command, tokens, "--tokens 80k");
    for (const char* reads : {" report ", " features "}) replace(command, reads, reads + std::string("--tokens 20k "));
    replace(command, " train ", " train --eval-contexts 16 ");
    const int status =
        std::system(("cd '" + dir.path() + "' && { " + command + " ; } >>output.txt 2>>errors.txt </dev/null").c_str());
    ASSERT_EQ(status, 0) << command << "\n" << read_bytes(dir / "errors.txt");
  }
  EXPECT_TRUE(fs::exists(dir / "runs/first/layer_3/width_4k"));
  EXPECT_GT(fs::file_size(dir / "runs/first.html"), 100'000u);
  EXPECT_TRUE(fs::exists(dir / "runs/suite/mlp/layer_1/width_1k"));
  EXPECT_EQ(read_json(dir / "exported/saelens/cfg.json").at("architecture"), "jumprelu");
  EXPECT_TRUE(fs::exists(dir / "exported/dictionary/ae.pt"));
  EXPECT_TRUE(fs::exists(dir / "imported/params.npz"));
}

}  // namespace
}  // namespace gsae::test
