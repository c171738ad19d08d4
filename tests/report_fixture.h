#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/command.h"
#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {

// A trained SAE of 4096 latents on the demo model, res of layer 3, and 32 contexts of 256 tokens.
inline const std::string kGoldenSae = test_data("eval/params.npz"), kGoldenTokens = test_data("eval/tokens.npy");

inline std::vector<std::string> on_golden(std::vector<std::string> words) {
  for (const std::string& word : {std::string("--model"), std::string("demo"), std::string("--layer"), std::string("3"),
                                  std::string("--site"), std::string("res"), std::string("--data"), kGoldenTokens,
                                  std::string("--split"), std::string("all"), std::string("--quiet")})
    words.push_back(word);
  return words;
}

inline std::string between(const std::string& text, const std::string& begin, const std::string& end) {
  const size_t from = text.find(begin);
  if (from == text.npos) throw Error("there is no " + begin);
  const size_t to = text.find(end, from + begin.size());
  if (to == text.npos) throw Error("there is no " + end + " behind " + begin);
  return text.substr(from + begin.size(), to - from - begin.size());
}

// The data of a page, which end at the first end of an element.
inline nlohmann::json data_of_page(const std::string& html) {
  return nlohmann::json::parse(between(html, "<script type=\"application/json\" id=\"data\">", "</script>"));
}

}  // namespace gsae::test
