#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "io/byte_source.h"
#include "io/line_reader.h"
#include "io/stop_signal.h"
#include "io/text_pieces.h"

namespace gsae {

// What a file's name says it holds: .txt and .jsonl (each also .gz and .zst), "-" (text or jsonl, told
// apart by the first byte), .npy, .bin and .safetensors (tokens). An Error with the accepted forms
// for any other name.
enum class DataKind { kText, kJsonl, kStandardInput, kTokens };
DataKind data_kind(const std::string& path);

// How much malformed data was passed over.
struct Skipped {
  int64_t count = 0;
  std::string first;  // "FILE:LINE: reason"
};

struct DocumentOptions {
  std::string text_field = "text";           // of a jsonl object
  bool skip_bad = false;                     // pass over what is malformed, and count it, instead of BadData
  const StopSignal* stop = nullptr;          // ends the waiting for standard input; then next() says false
  size_t max_line_bytes = size_t{64} << 20;  // of jsonl; a longer line is malformed
  size_t max_text_bytes = size_t{1} << 20;   // of txt: a longer file is cut into pieces
};

// The documents of one file of text, one after the other.
//
// jsonl: one JSON object a line, of which `text_field` is the document; blank lines are ignored.
// txt: the file is one document, or, if it is longer than max_text_bytes, as many as TextPieces (see
// there) makes of it. The text is not altered, except for a byte order mark in front.
//
// Malformed are: a line that is not such an object, text that is not UTF-8, and compressed data that
// is corrupt or ends early. Each is BadData "FILE:LINE: reason"; with skip_bad the line, the piece
// of text, or the rest of the file is passed over. An Error if the file cannot be read.
class DocumentReader {
 public:
  DocumentReader(const std::string& path, DocumentOptions options);

  bool next(std::string& text);  // false at the end
  const Skipped& skipped() const { return skipped_; }

 private:
  bool next_line(std::string& text);
  bool next_piece(std::string& text);
  void bad(int64_t line, const std::string& reason);

  std::string name_;
  DocumentOptions options_;
  Skipped skipped_;
  std::optional<LineReader> lines_;
  std::optional<TextPieces> pieces_;
};

}  // namespace gsae
