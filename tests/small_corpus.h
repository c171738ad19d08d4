#pragma once

#include <fmt/format.h>

#include <string>

namespace gsae::test {

// 600 documents as jsonl: a corpus that takes no time to read.
inline std::string documents() {
  std::string text;
  for (int i = 0; i < 600; ++i)
    text += fmt::format("{{\"text\": \"{} documents tell of {} rivers, {} hills and a house by the sea.\"}}\n", i,
                        i * i % 97, i * 31 % 89);
  return text;
}

}  // namespace gsae::test
