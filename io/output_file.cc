#include "io/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "kernels/check.h"

namespace gsae {
namespace {

// One system call moves less than 2 GiB on Linux; a smaller piece makes no difference to speed.
constexpr size_t kPiece = size_t{1} << 30;

[[noreturn]] void fail_to_write(const std::string& path, int error) {
  const char* advice = "";
  if (error == ENOSPC || error == EDQUOT) advice = "; free some space, or choose another folder";
  if (error == EACCES || error == EPERM || error == EROFS) advice = "; choose a folder that can be written to";
  if (error == ENOENT || error == ENOTDIR) advice = "; create the folder first";
  throw Error(fmt::format("cannot write {}: {}{}", path, std::strerror(error), advice));
}

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

}  // namespace

OutputFile::OutputFile(std::string path)
    : path_(std::move(path)), temporary_(fmt::format("{}.tmp-{}", path_, getpid())) {
  struct stat st {};
  if (path_.empty()) fail_to_write("''", ENOENT);
  if (stat(path_.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) fail_to_write(path_, EISDIR);
  unlink(temporary_.c_str());  // a killed process may have had our id; O_EXCL then keeps links out
  fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_to_write(path_, errno);
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

void OutputFile::write(const void* data, size_t bytes) {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, p, std::min(bytes, kPiece));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_to_write(path_, errno);
    p += n, bytes -= static_cast<size_t>(n);
  }
}

void OutputFile::write_at(size_t offset, const void* data, size_t bytes) {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = pwrite(fd_, p, std::min(bytes, kPiece), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_to_write(path_, errno);
    p += n, offset += static_cast<size_t>(n), bytes -= static_cast<size_t>(n);
  }
}

void OutputFile::resize(size_t bytes) {
  if (ftruncate(fd_, static_cast<off_t>(bytes)) != 0) fail_to_write(path_, errno);
  // Reserves the space now, so that a disk that is too small says so before the work is done. Not
  // posix_fallocate: where the file system cannot reserve, that writes every block.
  if (bytes > 0 && fallocate(fd_, 0, 0, static_cast<off_t>(bytes)) != 0 && (errno == ENOSPC || errno == EDQUOT))
    fail_to_write(path_, errno);
}

void OutputFile::commit() {
  CHECK(fd_ >= 0, "commit: the file is already in place");
  if (fsync(fd_) != 0) fail_to_write(path_, errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_to_write(path_, errno);
  const int closed = close(fd_);
  fd_ = -1;
  if (closed != 0) fail_to_write(path_, errno);
  // The rename itself survives a power cut only once the folder is synced. Some file systems refuse
  // that; the file is whole either way.
  const int folder = open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    (void)fsync(folder);
    close(folder);
  }
}

void write_file(const std::string& path, std::string_view content) {
  OutputFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

std::string read_file(const std::string& path, size_t limit) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Error(fmt::format("cannot read {}: {}", path, std::strerror(errno)));
  std::string content;
  int error = 0;
  // Grows with what has been read, not with the size that the file claims: a pipe claims none.
  for (size_t step = 1 << 16; content.size() <= limit; step *= 2) {
    const size_t old = content.size(), want = std::min(step, limit - old + 1);
    content.resize(old + want);
    const ssize_t n = read(fd, content.data() + old, want);
    content.resize(old + static_cast<size_t>(std::max<ssize_t>(n, 0)));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) error = errno;
    if (n <= 0) break;
  }
  close(fd);
  if (error) throw Error(fmt::format("cannot read {}: {}", path, std::strerror(error)));
  if (content.size() > limit) throw Error(fmt::format("{}: larger than {} bytes; is it the right file?", path, limit));
  return content;
}

}  // namespace gsae
