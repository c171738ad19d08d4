#pragma once

#include <string>
#include <vector>

#include "io/tokenizer.h"
#include "model/config.h"

namespace gsae {

// What a model is given to go on with.
struct Prompt {
  std::vector<int32_t> ids;   // BOS first
  std::vector<int32_t> ends;  // tokens that end the answer: <eos>, of a chat <end_of_turn> too
};

// `text` as it is; with `chat` as the user's turn of a conversation, in Gemma's format for instruction-tuned models:
//
//   <bos><start_of_turn>user\nTEXT<end_of_turn>\n<start_of_turn>model\n
//
// where TEXT is without the white space around it. Control tokens come from the format alone: text that spells one is
// text. An Error if the text is no UTF-8, or if the vocabulary has no turns.
Prompt make_prompt(const Tokenizer& tokenizer, const GemmaConfig& config, const std::string& text, bool chat);

}  // namespace gsae
