#include "tools/text_output.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "kernels/check.h"

namespace gsae {

void print_result(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw Error(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
}

void TextOutput::add(size_t text, std::string_view piece) {
  texts_[text].all += piece;
  if (text == current_) print_known();
}

void TextOutput::end(size_t text) {
  texts_[text].complete = true;
  if (text == current_) print_known();
}

void TextOutput::close() {
  while (current_ < texts_.size()) end(current_);
}

void TextOutput::print_known() {
  std::string out;
  for (; current_ < texts_.size(); ++current_, begun_ = false) {
    Text& t = texts_[current_];
    if (!begun_ && texts_.size() > 1)
      out += fmt::format("{}--- {} of {} ---\n", current_ > 0 ? "\n" : "", current_ + 1, texts_.size());
    begun_ = true;
    out += t.all.substr(t.printed);
    t.printed = t.all.size();
    if (!t.complete) break;
    out += "\n";
  }
  if (!out.empty()) print_result(out);
}

}  // namespace gsae
