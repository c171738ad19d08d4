#pragma once

#include <cstdint>
#include <string>

namespace gsae {

// Bytes that the documents of a file can take in memory, no more than `most`, from its headers alone: of text (.txt
// .jsonl, also .zst .gz) its size once decompressed; of tokens twice the file's, as those of 16 bits wait as 32. `most`
// where nothing says: standard input, what was compressed as a stream, .gz of several members. An Error if the file is
// not there.
int64_t stored_text_bytes(const std::string& path, int64_t most);

}  // namespace gsae
