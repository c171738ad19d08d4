#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace gsae {

// A SentencePiece tokenizer.model. Adds no special tokens: text that spells <bos> is text. Safe to
// use from several threads at once.
class Tokenizer {
 public:
  explicit Tokenizer(const std::string& path);  // of tokenizer.model; an Error names what is wrong
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  std::vector<int32_t> encode(std::string_view text) const;
  std::string decode(const std::vector<int32_t>& ids) const;
  std::string piece(int32_t id) const;  // as stored: "▁the", "<0x0A>", "<bos>"
  int32_t size() const;                 // of the vocabulary

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gsae
