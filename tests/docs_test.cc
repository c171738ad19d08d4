// What README.md and docs/ say one may type is what the program takes, and docs/commands.md is what it prints.
#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "tests/files.h"
#include "tests/paths.h"
#include "tools/commands.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;

struct Line {
  std::string file, text;
};

// The lines of code in the documentation that start gemma_sae, without their comments.
std::vector<Line> documented() {
  std::vector<std::string> files{source_file("README.md")};
  for (const auto& entry : fs::directory_iterator(source_file("docs")))
    if (entry.path().extension() == ".md") files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  std::vector<Line> lines;
  for (const std::string& file : files) {
    std::istringstream text(read_bytes(file));
    for (std::string line; std::getline(text, line);) {
      if (line.rfind("    ", 0) != 0) continue;  // code is indented
      line = line.substr(4);
      if (line.rfind("./gemma_sae ", 0) == 0) line = line.substr(2);
      if (line.rfind("gemma_sae ", 0) != 0) continue;
      if (const size_t comment = line.find(" #"); comment != line.npos) line.resize(comment);
      lines.push_back({fs::path(file).filename().string(), line.substr(line.find(' ') + 1)});
    }
  }
  return lines;
}

struct Parsed {
  std::vector<std::string> rest;  // that no option took
};

// Parses a command line as main() does, and stops where the command would begin.
std::string complaint_about(const std::string& words) {
  CLI::App app;
  add_commands(app);
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    command->parse_complete_callback([command] { throw Parsed{command->remaining()}; });
  try {
    app.parse(words);
  } catch (const Parsed& parsed) {
    return parsed.rest.empty() ? "" : "unknown: " + parsed.rest[0];
  } catch (const CLI::ParseError& e) {
    return e.what();
  }
  return "no command";
}

TEST(Docs, CommandLinesAreOnesThatTheProgramTakes) {
  if (source_file("README.md").empty()) GTEST_SKIP() << "no source tree";
  EXPECT_EQ(complaint_about("train --layer 3"), "");
  EXPECT_NE(complaint_about("train --layers 3"), "");  // this test can fail
  EXPECT_NE(complaint_about("fly"), "");
  const auto lines = documented();
  EXPECT_GT(lines.size(), 10u);
  for (const auto& [file, text] : lines) EXPECT_EQ(complaint_about(text), "") << file << ": gemma_sae " << text;
}

TEST(Docs, TheReferenceIsThatOfTheProgram) {
  if (source_file("README.md").empty()) GTEST_SKIP() << "no source tree";
  CLI::App app;
  add_commands(app);
  EXPECT_EQ(read_bytes(source_file("docs/commands.md")), reference(app)) << "make reference writes it";
}

}  // namespace
}  // namespace gsae::test
