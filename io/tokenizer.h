#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
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
  std::string decode(const std::vector<int32_t>& ids) const;  // an Error for an id outside the vocabulary
  std::string piece(int32_t id) const;                        // as stored: "▁the", "<0x0A>", "<bos>"
  // What it stands for within a text: " the", one byte of a character for <0x0A>, nothing for a control token.
  std::string text(int32_t id) const;
  int32_t find(std::string_view piece) const;  // its id; -1 if the vocabulary has none of that name
  int32_t size() const;                        // of the vocabulary
  int32_t bos() const;                         // an Error if the vocabulary has none

  // The end of the first stretch of text[begin..] that is encoded independently of what follows: the
  // ids of a text are those of its stretches, put together. About a word; text.size() at the latest.
  size_t word_end(std::string_view text, size_t begin) const;

 private:
  friend class WordEncoder;
  void append(std::vector<int32_t>& ids, std::string_view text) const;  // by SentencePiece, as a whole

  struct State;
  std::unique_ptr<State> state_;
};

// Encodes exactly as the Tokenizer does, but remembers the words it has met: on prose ten to
// thirty times as fast. For one thread; takes up to some 20 MB.
class WordEncoder {
 public:
  explicit WordEncoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void encode(std::vector<int32_t>& ids, std::string_view text);  // ids: replaced

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const;
  };

  const Tokenizer& tokenizer_;
  std::unordered_map<std::string, std::vector<int32_t>, Hash, std::equal_to<>> words_;
};

}  // namespace gsae
