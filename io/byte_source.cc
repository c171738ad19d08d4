#include "io/byte_source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace gsae {
namespace {

constexpr size_t kCompressedChunk = size_t{128} << 10;

class FdSource : public ByteSource {
 public:
  FdSource(int fd, std::string name, const StopSignal* stop) : fd_(fd), name_(std::move(name)), stop_(stop) {}
  ~FdSource() override {
    if (fd_ != STDIN_FILENO) close(fd_);
  }

  size_t read(char* out, size_t n) override {
    while (true) {
      if (stop_ && stop_->raised()) return 0;
      if (stop_ && fd_ == STDIN_FILENO) {  // a regular file never waits long
        pollfd wait[2] = {{.fd = fd_, .events = POLLIN, .revents = 0},
                          {.fd = stop_->fd(), .events = POLLIN, .revents = 0}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR) fail();
        if (!(wait[0].revents)) continue;
      }
      const ssize_t got = ::read(fd_, out, n);
      if (got >= 0) return static_cast<size_t>(got);
      if (errno != EINTR && errno != EAGAIN) fail();
    }
  }

 private:
  [[noreturn]] void fail() const { throw Error(fmt::format("cannot read {}: {}", name_, std::strerror(errno))); }

  int fd_;
  std::string name_;
  const StopSignal* stop_;
};

class GzipSource : public ByteSource {
 public:
  explicit GzipSource(std::unique_ptr<ByteSource> source) : source_(std::move(source)), in_(kCompressedChunk) {
    constexpr int kGzipOnly = 16;
    if (inflateInit2(&z_, kGzipOnly + MAX_WBITS) != Z_OK) throw Error("zlib cannot be initialised");
  }
  ~GzipSource() override { inflateEnd(&z_); }

  size_t read(char* out, size_t n) override {
    n = std::min(n, size_t{1} << 30);  // zlib counts in unsigned int
    z_.next_out = reinterpret_cast<Bytef*>(out);
    z_.avail_out = static_cast<uInt>(n);
    while (z_.avail_out == n) {
      if (z_.avail_in == 0) {
        const size_t got = source_->read(in_.data(), in_.size());
        if (got == 0 && inside_) throw BadData("the gzip data ends early: the file is truncated");
        if (got == 0) return 0;
        z_.next_in = reinterpret_cast<Bytef*>(in_.data());
        z_.avail_in = static_cast<uInt>(got);
      }
      if (std::exchange(inside_, true) == false && inflateReset(&z_) != Z_OK) throw Error("zlib cannot be initialised");
      const int rc = inflate(&z_, Z_NO_FLUSH);
      if (rc == Z_STREAM_END) inside_ = false;  // another member may follow
      else if (rc != Z_OK && rc != Z_BUF_ERROR)
        throw BadData(fmt::format("not gzip data, or corrupt ({})", z_.msg ? z_.msg : "zlib error"));
    }
    return n - z_.avail_out;
  }

 private:
  std::unique_ptr<ByteSource> source_;
  std::vector<char> in_;
  z_stream z_{};
  bool inside_ = true;  // of a member; an empty file is a truncated one
};

class ZstdSource : public ByteSource {
 public:
  explicit ZstdSource(std::unique_ptr<ByteSource> source)
      : source_(std::move(source)), in_(kCompressedChunk), z_(ZSTD_createDStream()) {
    if (!z_) throw Error("zstd cannot be initialised");
  }
  ~ZstdSource() override { ZSTD_freeDStream(z_); }

  size_t read(char* out, size_t n) override {
    ZSTD_outBuffer to{out, n, 0};
    while (to.pos == 0) {
      if (from_.pos == from_.size && !more_output_) {
        from_ = {in_.data(), source_->read(in_.data(), in_.size()), 0};
        if (from_.size == 0 && inside_) throw BadData("the Zstandard data ends early: the file is truncated");
        if (from_.size == 0) return 0;
      }
      const size_t rc = ZSTD_decompressStream(z_, &to, &from_);
      if (ZSTD_isError(rc)) {
        const bool window = ZSTD_getErrorCode(rc) == ZSTD_error_frameParameter_windowTooLarge;
        throw BadData(fmt::format("not Zstandard data, or corrupt ({}){}", ZSTD_getErrorName(rc),
                                  window ? ": compress it again without --long" : ""));
      }
      inside_ = rc != 0;
      more_output_ = inside_ && to.pos == n;  // what did not fit comes without another byte of input
    }
    return to.pos;
  }

 private:
  std::unique_ptr<ByteSource> source_;
  std::vector<char> in_;
  ZSTD_inBuffer from_{nullptr, 0, 0};
  ZSTD_DStream* z_;
  bool inside_ = true;  // of a frame; an empty file is a truncated one
  bool more_output_ = false;
};

}  // namespace

std::string display_name(const std::string& path) { return path == "-" ? "standard input" : path; }

std::unique_ptr<ByteSource> open_bytes(const std::string& path, const StopSignal* stop) {
  const std::string name = display_name(path);
  if (path == "-") {
    auto input = std::make_unique<PeekedSource>(std::make_unique<FdSource>(STDIN_FILENO, name, stop));
    const std::string& magic = input->peek(4);
    if (magic == "\x28\xb5\x2f\xfd") return std::make_unique<ZstdSource>(std::move(input));
    if (magic.starts_with("\x1f\x8b")) return std::make_unique<GzipSource>(std::move(input));
    return input;
  }
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe without a writer must not block here
  if (fd < 0) throw Error(fmt::format("cannot open {}: {}", name, std::strerror(errno)));
  auto file = std::make_unique<FdSource>(fd, name, stop);
  struct stat st {};
  if (fstat(fd, &st) != 0) throw Error(fmt::format("cannot read {}: {}", name, std::strerror(errno)));
  if (S_ISDIR(st.st_mode)) throw Error(fmt::format("cannot read {}: it is a folder; name the files in it", name));
  if (!S_ISREG(st.st_mode)) throw Error(fmt::format("cannot read {}: not a regular file; use - for a pipe", name));
  if (st.st_size == 0) throw Error(fmt::format("{} is empty", name));
  if (path.ends_with(".zst")) return std::make_unique<ZstdSource>(std::move(file));
  if (path.ends_with(".gz")) return std::make_unique<GzipSource>(std::move(file));
  return file;
}

const std::string& PeekedSource::peek(size_t n) {
  while (front_.size() < n) {
    const size_t had = front_.size();
    front_.resize(n);
    const size_t got = source_->read(front_.data() + had, n - had);
    front_.resize(had + got);
    if (got == 0) break;
  }
  return front_;
}

size_t PeekedSource::read(char* out, size_t n) {
  if (taken_ == front_.size()) return source_->read(out, n);
  n = std::min(n, front_.size() - taken_);
  std::memcpy(out, front_.data() + taken_, n);
  taken_ += n;
  return n;
}

}  // namespace gsae
