#include "tools/prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "io/utf8.h"
#include "kernels/check.h"

namespace gsae {

namespace {

// Gemma's vocabulary has these as symbols that are found in any text, unlike <bos> and <eos>.
constexpr std::string_view kStart = "<start_of_turn>", kEnd = "<end_of_turn>";

// Appends the ids of a text, cut within each name of a control token, so that it becomes none.
void append_text(std::vector<int32_t>& ids, const Tokenizer& tokenizer, std::string_view text) {
  while (!text.empty()) {
    const size_t name = std::min(text.find(kStart), text.find(kEnd));
    const size_t end = name == text.npos ? text.size() : name + 1;
    const auto part = tokenizer.encode(text.substr(0, end));
    ids.insert(ids.end(), part.begin(), part.end());
    text.remove_prefix(end);
  }
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\v\f";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

}  // namespace

Prompt make_prompt(const Tokenizer& tokenizer, const GemmaConfig& config, const std::string& text, bool chat) {
  if (const size_t valid = valid_utf8_prefix(text); valid < text.size())
    throw Error(fmt::format("the prompt is not UTF-8: byte {} ends no character", valid));
  Prompt prompt{.ids = {config.bos}, .ends = {config.eos}};
  if (!chat) {
    append_text(prompt.ids, tokenizer, text);
    return prompt;
  }
  const int32_t start = tokenizer.find(kStart), end = tokenizer.find(kEnd);
  if (start < 0 || end < 0)
    throw Error(
        fmt::format("--chat: the vocabulary has no {} and {}: this is no model for chats; leave --chat out to "
                    "have it go on with the prompt",
                    kStart, kEnd));
  prompt.ids.push_back(start);
  append_text(prompt.ids, tokenizer, fmt::format("user\n{}", trim(text)));
  prompt.ids.push_back(end);
  append_text(prompt.ids, tokenizer, "\n");
  prompt.ids.push_back(start);
  append_text(prompt.ids, tokenizer, "model\n");
  prompt.ends.push_back(end);
  return prompt;
}

}  // namespace gsae
