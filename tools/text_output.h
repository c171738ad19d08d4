#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gsae {

// What is generated, on standard output, as soon as it is known. One text is printed as it grows; of several each under
// a line with its number, in their order: the first that is not complete as it grows, those behind it when it is.
class TextOutput {
 public:
  explicit TextOutput(size_t texts) : texts_(texts) {}

  void add(size_t text, std::string_view piece);
  void end(size_t text);  // it is complete; a line break follows it
  void close();           // so are all: of what has begun
  const std::string& text(size_t i) const { return texts_[i].all; }

 private:
  struct Text {
    std::string all;
    size_t printed = 0;
    bool complete = false;
  };
  void print_known();

  std::vector<Text> texts_;
  size_t current_ = 0;
  bool begun_ = false;  // its heading is printed
};

// Writes and flushes; an Error if standard output takes no more.
void print_result(std::string_view text);

}  // namespace gsae
