#pragma once

#include <cstdio>
#include <string_view>

namespace gsae {

// Writes and flushes. A stream that takes no more (`| head`, a full disk behind `> log`) is no error: hours of work do
// not end because nobody reads what they say.
void print(std::FILE* out, std::string_view text);

// Standard streams that the caller closed become /dev/null: the first file that the program opens would take their
// place, and be written into by every message. First thing in main().
void open_standard_streams();

}  // namespace gsae
