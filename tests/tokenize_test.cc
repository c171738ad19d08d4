#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/command.h"
#include "tests/files.h"
#include "tests/paths.h"
#include "tests/sanitized.h"

namespace gsae::test {
namespace {

using nlohmann::json;

// Through the binary: the goldens' texts as jsonl, and the ids that the sentencepiece package gives.
TEST(Tokenize, GoldensOfTheDemo) {
  TempFolder folder;
  std::string lines;
  std::vector<std::vector<int32_t>> want;
  const json goldens = json::parse(read_bytes(test_data("tokenizer.json")));
  for (const json& golden : goldens.at("tiny")) {
    lines += json{{"body", golden.at("text")}}.dump() + "\n";
    want.push_back(golden.at("ids"));
  }
  write_bytes(folder / "a.jsonl", lines);
  for (const bool bos : {false, true}) {
    std::vector<std::string> arguments = {"tokenize", "--model", "demo", folder / "a.jsonl", "--text-field", "body"};
    if (bos) arguments.push_back("--bos");
    const CommandResult r = run_command(arguments);
    EXPECT_EQ(r.status, 0) << r.err;
    std::istringstream out(r.out);
    std::vector<std::vector<int32_t>> got;
    for (std::string line; std::getline(out, line);) got.push_back(json::parse(line).at("ids"));
    if (bos)
      for (auto& ids : want) ids.insert(ids.begin(), 2);
    EXPECT_EQ(got, want);
  }
}

TEST(Tokenize, OrderDoesNotDependOnTheThreads) {
  const std::string corpus = demo_data("corpus.jsonl.zst"), tokenizer = demo_data("model/tokenizer.model");
  TempFolder folder;
  std::string text = "{\"text\": \"";
  for (int i = 0; i < 3000; ++i) text += std::to_string(i) + (i % 37 ? " word " : "\"}\n{\"text\": \"");
  write_bytes(folder / "a.jsonl", text + "\"}");
  std::vector<std::string> words{"tokenize", "--tokenizer", tokenizer, "--data", folder / "a.jsonl"};
  if (!kSanitized) words.push_back(corpus);
  const auto one = run_command(words);
  words.insert(words.end(), {"--threads", "4"});
  const auto four = run_command(words);
  EXPECT_EQ(one.status, 0) << one.err;
  EXPECT_EQ(std::count(one.out.begin(), one.out.end(), '\n'), (kSanitized ? 0 : 4319) + 83);
  EXPECT_TRUE(one.out == four.out);
}

TEST(Tokenize, Refuses) {
  TempFolder folder;
  write_bytes(folder / "a.jsonl", "{\"text\": \"x\"}\nnonsense\n");
  const auto expect = [](std::vector<std::string> arguments, int status, const std::string& part) {
    arguments.insert(arguments.begin(), {"tokenize", "--model", "demo"});
    const CommandResult r = run_command(arguments);
    EXPECT_EQ(r.status, status);
    EXPECT_NE(r.err.find(part), std::string::npos) << r.err;
  };
  expect({}, 2, "--data");
  expect({folder / "a.jsonl"}, 1, "a.jsonl:2: ");
  expect({folder / "a.jsonl", "--skip-bad"}, 0, "skipped 1 malformed");
  expect({folder / "absent.jsonl"}, 1, "absent.jsonl");
  expect({folder / "a.json"}, 1, ".jsonl");
  expect({"tokens.npy"}, 1, "tokens already");
  expect({folder.path()}, 1, "must end in");
  expect({folder / "a.jsonl", "--tokenizer", folder / "a.jsonl"}, 1, "not a SentencePiece model");
  EXPECT_EQ(run_command({"tokenize", "--model", "demo", "-"}).out, "");  // nothing on standard input
}

}  // namespace
}  // namespace gsae::test
