#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "io/stop_signal.h"
#include "kernels/check.h"

namespace gsae {

// What is wrong is in the data (a malformed line, a truncated file), not in the system or the
// options: readers that may skip bad data skip these, and only these. Says neither file nor line:
// whoever knows them puts them in front.
struct BadData : Error {
  using Error::Error;
};

// The bytes of a file in order, decompressed.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Puts up to n > 0 bytes into out and returns how many; 0 only at the end, or once a StopSignal is
  // raised. BadData if compressed bytes are corrupt or end early; an Error if the system cannot read.
  virtual size_t read(char* out, size_t n) = 0;
};

// `path`.gz is gzip (RFC 1952, any number of members), `path`.zst is Zstandard (RFC 8878, any number
// of frames, windows up to 128 MiB), "-" is standard input, of which the first bytes say whether it
// is either; all else is read as it is. Waiting for standard input ends when `stop` is raised.
std::unique_ptr<ByteSource> open_bytes(const std::string& path, const StopSignal* stop = nullptr);

// How messages call a file: its path, or "standard input".
std::string display_name(const std::string& path);

// A source, and what was read from it to see what it is, put back in front.
class PeekedSource : public ByteSource {
 public:
  explicit PeekedSource(std::unique_ptr<ByteSource> source) : source_(std::move(source)) {}
  const std::string& peek(size_t n);  // the first n bytes, fewer if there are no more; before read()
  size_t read(char* out, size_t n) override;

 private:
  std::unique_ptr<ByteSource> source_;
  std::string front_;
  size_t taken_ = 0;  // of front_
};

}  // namespace gsae
