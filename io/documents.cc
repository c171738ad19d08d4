#include "io/documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "io/json_field.h"
#include "io/utf8.h"

namespace gsae {
namespace {

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == line.npos; }

}  // namespace

DataKind data_kind(const std::string& path) {
  if (path == "-") return DataKind::kStandardInput;
  for (const char* end : {".npy", ".bin", ".safetensors"})
    if (path.ends_with(end)) return DataKind::kTokens;
  std::string_view name = path;
  for (const std::string_view end : {".gz", ".zst"})
    if (name.ends_with(end)) {
      name.remove_suffix(end.size());
      break;
    }
  if (name.ends_with(".txt")) return DataKind::kText;
  if (name.ends_with(".jsonl")) return DataKind::kJsonl;
  throw Error(
      fmt::format("{}: what it holds is told by its name, which must end in .txt or .jsonl (text; also .txt.gz, "
                  ".txt.zst, .jsonl.gz, .jsonl.zst) or .npy, .bin or .safetensors (tokens); - is standard input",
                  path));
}

DocumentReader::DocumentReader(const std::string& path, DocumentOptions options)
    : name_(display_name(path)), options_(std::move(options)) {
  const DataKind kind = data_kind(path);
  if (kind == DataKind::kTokens) throw Error(fmt::format("{} holds tokens, not text", path));
  try {
    auto source = std::make_unique<PeekedSource>(open_bytes(path, options_.stop));
    const bool jsonl =
        kind == DataKind::kJsonl || (kind == DataKind::kStandardInput && source->peek(1).starts_with('{'));
    if (jsonl) lines_.emplace(std::move(source), options_.max_line_bytes);
    else pieces_.emplace(std::move(source), options_.max_text_bytes);
  } catch (const BadData& e) {
    bad(1, e.what());
  }
}

// Throws, or counts.
void DocumentReader::bad(int64_t line, const std::string& reason) {
  std::string message = fmt::format("{}:{}: {}", name_, line, reason);
  if (!options_.skip_bad) throw BadData(message);
  if (skipped_.count++ == 0) skipped_.first = std::move(message);
}

bool DocumentReader::next(std::string& text) { return lines_ ? next_line(text) : pieces_ ? next_piece(text) : false; }

bool DocumentReader::next_line(std::string& text) {
  std::string_view line;
  while (true) {
    try {
      if (!lines_->next(line)) return false;
      if (is_blank(line)) continue;
    } catch (const LineTooLong& e) {
      bad(lines_->number(), e.what());
      continue;
    } catch (const BadData& e) {  // from below: there is nothing more to read
      bad(lines_->number() + 1, e.what());
      lines_.reset();
      return false;
    }
    try {
      read_json_field(text, line, options_.text_field);
      return true;
    } catch (const BadData& e) {
      bad(lines_->number(), e.what());
    }
  }
}

bool DocumentReader::next_piece(std::string& text) {
  while (true) {
    try {
      if (!pieces_->next(text)) return false;
    } catch (const BadData& e) {
      bad(pieces_->next_line(), e.what());
      pieces_.reset();
      return false;
    }
    const size_t valid = valid_utf8_prefix(text);
    if (valid == text.size()) return true;
    bad(pieces_->line() + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(valid), '\n'),
        fmt::format("not UTF-8 (byte {:#04x})", static_cast<unsigned char>(text[valid])));
  }
}

}  // namespace gsae
