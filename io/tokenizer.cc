#include "io/tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <xxhash.h>

#include <array>
#include <bitset>

#include "io/mapped_file.h"
#include "io/sentencepiece_spec.h"
#include "kernels/check.h"

namespace gsae {
namespace {

constexpr size_t kMaxModelBytes = size_t{512} << 20;
constexpr size_t kPartBytes = 4096;    // SentencePiece takes longer per byte the longer the text is
constexpr size_t kMaxWordBytes = 48;   // longer ones hardly ever come again
constexpr size_t kMaxWords = 100'000;  // that a WordEncoder remembers

// Characters are told apart as far as this: the ASCII ones, and all others.
constexpr int kOther = 128;
constexpr int char_class(char c) { return static_cast<unsigned char>(c) < 0x80 ? c : kOther; }

// Pairs of neighbouring characters between which a text may be cut.
//
// BPE merges two neighbouring symbols only if their concatenation is a piece of the vocabulary, and
// a user-defined symbol is a piece itself. So where two neighbouring characters occur side by side in
// no piece at all, no symbol ever spans the point between them, and what is merged on one side has
// no influence on the other. That holds if, beyond merging, each character is treated by itself:
// - the text is not normalised, apart from writing each space as U+2581, which in pieces thus stands
//   for a space as well as for itself;
// - unknown characters become bytes, and are not joined with their neighbours into one <unk>;
// - no piece is marked unused: such pieces are taken apart again by the last way, of any place in
//   the text, in which they could have been put together.
class Cuts {
 public:
  Cuts(const sentencepiece::SentencePieceProcessor& p, const SentencePieceSpec& spec) {
    constexpr int kBpe = 2;
    if (spec.model_type != kBpe || !spec.byte_fallback || spec.add_dummy_prefix || spec.remove_extra_whitespaces)
      return;
    for (int id = 0; id < p.GetPieceSize(); ++id)
      if (p.IsUnused(id)) return;
    allowed_.set();
    forbid(kOther, kOther);  // nor within a character
    for (int id = 0; id < p.GetPieceSize(); ++id) forbid_inside(p.IdToPiece(id));
  }

  bool between(char a, char b) const { return allowed_[index(char_class(a), char_class(b))]; }

 private:
  static size_t index(int a, int b) { return static_cast<size_t>(a) * (kOther + 1) + static_cast<size_t>(b); }
  void forbid(int a, int b) { allowed_.reset(index(a, b)); }
  void forbid_inside(std::string_view piece) {
    constexpr std::string_view kSpace = "\xE2\x96\x81";
    int before = -1, before_too = -1;  // the classes of the character before; a U+2581 has two
    for (size_t i = 0; i < piece.size();) {
      const bool space = piece.substr(i).starts_with(kSpace);
      const int here = char_class(piece[i]), here_too = space ? ' ' : here;
      for (const int a : {before, before_too})
        for (const int b : {here, here_too})
          if (a >= 0) forbid(a, b);
      before = here, before_too = here_too;
      i += space ? kSpace.size() : 1;
    }
  }

  std::bitset<(kOther + 1) * (kOther + 1)> allowed_;  // none at first
};

}  // namespace

struct Tokenizer::State {
  std::string path;
  sentencepiece::SentencePieceProcessor processor;
  std::unique_ptr<Cuts> cuts;
};

Tokenizer::Tokenizer(const std::string& path) : state_(std::make_unique<State>()) {
  const MappedFile file(path);
  const std::string_view model(reinterpret_cast<const char*>(file.data()), file.size());
  const auto refuse = [&](std::string_view why) {
    throw Error(fmt::format("{} is not a SentencePiece model: {}", path, why));
  };
  if (model.empty()) refuse("it is empty");
  if (model.size() > kMaxModelBytes) refuse("it is larger than any tokenizer");
  if (model.starts_with("version https://git-lfs")) refuse("it is a Git LFS pointer; fetch the file with git lfs pull");
  if (model.starts_with("{")) refuse("it is JSON; tokenizer.model is the file beside it");
  // The library follows such a table without a check: hostile ones lead it out of bounds.
  const SentencePieceSpec spec = read_sentencepiece_spec(model);
  if (!spec.whole) refuse("it is cut short, or no protobuf message");
  if (spec.has_charsmap) refuse("it normalises text by a table (precompiled_charsmap), which Gemma's does not");
  sentencepiece::util::Status status;
  try {
    status = state_->processor.LoadFromSerializedProto({model.data(), model.size()});
  } catch (const std::exception& e) {  // of what it builds its trie with: a piece that begins with a zero byte
    refuse(e.what());
  }
  if (!status.ok()) refuse(status.ToString());
  state_->path = path;
  state_->cuts = std::make_unique<Cuts>(state_->processor, spec);
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;

size_t Tokenizer::word_end(std::string_view text, size_t begin) const {
  size_t i = begin + 1;
  while (i < text.size() && !state_->cuts->between(text[i - 1], text[i])) ++i;
  return std::min(i, text.size());
}

void Tokenizer::append(std::vector<int32_t>& ids, std::string_view text) const {
  std::vector<int> part;
  const auto status = state_->processor.Encode({text.data(), text.size()}, &part);
  if (!status.ok()) throw Error(fmt::format("{}: cannot encode: {}", state_->path, status.ToString()));
  ids.insert(ids.end(), part.begin(), part.end());
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    while (end < text.size() && end - begin < kPartBytes) end = word_end(text, end);
    append(ids, text.substr(begin, end - begin));
    begin = end;
  }
  return ids;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  const auto status = state_->processor.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
  if (!status.ok()) throw Error(fmt::format("{}: cannot decode: {}", state_->path, status.ToString()));
  return text;
}

std::string Tokenizer::piece(int32_t id) const {
  if (id < 0 || id >= size())
    throw Error(fmt::format("{}: id {} is outside the vocabulary of {}", state_->path, id, size()));
  return state_->processor.IdToPiece(id);
}

std::string Tokenizer::text(int32_t id) const {
  const auto& p = state_->processor;
  const std::string piece = this->piece(id);
  if (p.IsControl(id)) return "";
  if (p.IsUnknown(id)) return " \xE2\x81\x87 ";  // as the library prints it
  if (p.IsByte(id)) return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));  // <0x0A>
  constexpr std::string_view kSpace = "\xE2\x96\x81";
  std::string text;
  for (std::string_view rest = piece; !rest.empty();) {
    const bool space = rest.starts_with(kSpace);
    text += space ? ' ' : rest[0];
    rest.remove_prefix(space ? kSpace.size() : 1);
  }
  return text;
}

int32_t Tokenizer::find(std::string_view piece) const {
  const int id = state_->processor.PieceToId({piece.data(), piece.size()});
  return state_->processor.IdToPiece(id) == piece ? id : -1;
}

int32_t Tokenizer::size() const { return state_->processor.GetPieceSize(); }

int32_t Tokenizer::bos() const {
  const int id = state_->processor.bos_id();
  if (id < 0) throw Error(fmt::format("{}: the vocabulary has no BOS", state_->path));
  return id;
}

size_t WordEncoder::Hash::operator()(std::string_view s) const { return XXH3_64bits(s.data(), s.size()); }

void WordEncoder::encode(std::vector<int32_t>& ids, std::string_view text) {
  ids.clear();
  for (size_t begin = 0, end; begin < text.size(); begin = end) {
    end = tokenizer_.word_end(text, begin);
    const std::string_view word = text.substr(begin, end - begin);
    if (word.size() > kMaxWordBytes) {
      tokenizer_.append(ids, word);
      continue;
    }
    auto known = words_.find(word);
    if (known == words_.end()) {
      std::vector<int32_t> word_ids;
      tokenizer_.append(word_ids, word);
      if (words_.size() >= kMaxWords) {
        ids.insert(ids.end(), word_ids.begin(), word_ids.end());
        continue;
      }
      known = words_.emplace(word, std::move(word_ids)).first;
    }
    ids.insert(ids.end(), known->second.begin(), known->second.end());
  }
}

}  // namespace gsae
