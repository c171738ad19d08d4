#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/check.h"
#include "tests/files.h"

// A target: one parser, which gets bytes that may be anything. Linked with libFuzzer (make fuzz), or with replay.cc.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace gsae::test {

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Where a target puts its input: parsers take paths. $TMPDIR says on which file system.
inline const TempFolder& fuzz_folder() {
  static const TempFolder folder;
  return folder;
}

// An input that stands for several files: its parts between lines of five #, no more than `most`, the last one with
// whatever follows.
inline std::vector<std::string_view> parts_of(std::string_view input, size_t most) {
  constexpr std::string_view kLine = "\n#####\n";
  std::vector<std::string_view> parts;
  while (parts.size() + 1 < most) {
    const size_t at = input.find(kLine);
    if (at == input.npos) break;
    parts.push_back(input.substr(0, at));
    input.remove_prefix(at + kLine.size());
  }
  parts.push_back(input);
  return parts;
}

// What a parser may do with hostile bytes is to return, or to throw an Error. Whatever else is thrown ends the process.
template <class F> void may_refuse(F&& parse) {
  try {
    parse();
  } catch (const Error&) {}
}

}  // namespace gsae::test
