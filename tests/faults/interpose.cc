// A library for LD_PRELOAD that makes the system fail, as environment variables say. Of the calls that write to paths
// which contain GSAE_FAULT_PATHS (write, pwrite, fsync, ftruncate, fallocate, rename, mkdir, and open to create),
// counted from 1 in the order in which they come:
//
//   GSAE_FAULT_LOG=FILE     each is a line there: "NUMBER CALL PATH"
//   GSAE_FAULT_AT=N         the Nth fails
//   GSAE_FAULT_LAST=M       and those behind it, up to the Mth; default N
//   GSAE_FAULT_ERROR=5      with this errno; 28 (ENOSPC): what takes no space still works, and of the first write half
//                           is written, as where a disk fills up
//   GSAE_FAULT_FSYNC_MS=T   fsync takes so long, once there is the file GSAE_FAULT_FSYNC_IF
//
// And clocks: from the GSAE_FAULT_CLOCK_ATth of those calls on, CLOCK_REALTIME (and time, gettimeofday) is
// GSAE_FAULT_REALTIME seconds further on, or back, and CLOCK_MONOTONIC GSAE_FAULT_MONOTONIC seconds.
//
// Everything goes to the kernel directly: no other library's functions are looked up, so that it works before they are
// initialised, and under the sanitizers.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace {

long number(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::atol(text) : otherwise;
}

enum class Space { kNone, kTaken };  // whether a call that succeeds takes space on the disk

std::atomic<long> calls{0};

// Whether this call is to fail: 0, or the errno. first: it is the first that does.
int fault(const char* call, const char* path, Space space, bool* first = nullptr) {
  static const char* const paths = std::getenv("GSAE_FAULT_PATHS");
  if (!paths || !*paths || !path || !std::strstr(path, paths)) return 0;
  static const char* const log = std::getenv("GSAE_FAULT_LOG");
  static const long at = number("GSAE_FAULT_AT", 0), last = number("GSAE_FAULT_LAST", at),
                    error = number("GSAE_FAULT_ERROR", EIO);
  const long n = ++calls;
  if (log) {
    char line[4200];
    const int bytes = std::snprintf(line, sizeof line, "%ld %s %s\n", n, call, path);
    const long file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    syscall(SYS_write, file, line, bytes);
    syscall(SYS_close, file);
  }
  if (at == 0 || n < at || n > last || (error == ENOSPC && space == Space::kNone)) return 0;
  static std::atomic<bool> failed{false};
  if (first) *first = !failed.exchange(true);
  return static_cast<int>(error);
}

struct PathOf {  // of an open file
  explicit PathOf(int fd) {
    char link[40];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const long n = syscall(SYS_readlinkat, AT_FDCWD, link, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
  }
  char text[4096];
};

int failed(int error) { return errno = error, -1; }

int open_file(const char* path, int flags, mode_t mode) {
  if (flags & O_CREAT)
    if (const int error = fault("open", path, Space::kTaken)) return failed(error);
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

long jump(clockid_t clock) {  // nanoseconds must not matter
  static const long at = number("GSAE_FAULT_CLOCK_AT", 0), real = number("GSAE_FAULT_REALTIME", 0),
                    monotonic = number("GSAE_FAULT_MONOTONIC", 0);
  if (at == 0 || calls < at) return 0;
  return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE     ? real
         : clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE ? monotonic
                                                                       : 0;
}

}  // namespace

extern "C" {

ssize_t write(int fd, const void* data, size_t n) {
  bool first = false;
  if (const int error = fault("write", PathOf(fd).text, Space::kTaken, &first)) {
    if (error != ENOSPC || !first || n < 2) return failed(error);
    n /= 2;
  }
  return syscall(SYS_write, fd, data, n);
}

ssize_t pwrite(int fd, const void* data, size_t n, off_t at) {
  bool first = false;
  if (const int error = fault("pwrite", PathOf(fd).text, Space::kTaken, &first)) {
    if (error != ENOSPC || !first || n < 2) return failed(error);
    n /= 2;
  }
  return syscall(SYS_pwrite64, fd, data, n, at);
}
ssize_t pwrite64(int fd, const void* data, size_t n, off_t at) { return pwrite(fd, data, n, at); }

int fsync(int fd) {
  static const long milliseconds = number("GSAE_FAULT_FSYNC_MS", 0);
  const PathOf path(fd);
  if (const int error = fault("fsync", path.text, Space::kNone)) return failed(error);
  static const char* const slow = std::getenv("GSAE_FAULT_FSYNC_IF");
  if (milliseconds > 0 && slow && access(slow, F_OK) == 0) usleep(static_cast<useconds_t>(milliseconds * 1000));
  return static_cast<int>(syscall(SYS_fsync, fd));
}

int ftruncate(int fd, off_t n) noexcept {
  if (const int error = fault("ftruncate", PathOf(fd).text, Space::kNone)) return failed(error);
  return static_cast<int>(syscall(SYS_ftruncate, fd, n));
}
int ftruncate64(int fd, off_t n) noexcept { return ftruncate(fd, n); }

int fallocate(int fd, int mode, off_t at, off_t n) {
  if (const int error = fault("fallocate", PathOf(fd).text, Space::kTaken)) return failed(error);
  return static_cast<int>(syscall(SYS_fallocate, fd, mode, at, n));
}
int fallocate64(int fd, int mode, off_t at, off_t n) { return fallocate(fd, mode, at, n); }

int rename(const char* from, const char* to) noexcept {
  if (const int error = fault("rename", to, Space::kNone)) return failed(error);
  return static_cast<int>(syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to));
}

int mkdir(const char* path, mode_t mode) noexcept {
  if (const int error = fault("mkdir", path, Space::kTaken)) return failed(error);
  return static_cast<int>(syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}

int open(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  return open_file(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  return open_file(path, flags, mode);
}

int clock_gettime(clockid_t clock, timespec* t) noexcept {
  const long result = syscall(SYS_clock_gettime, clock, t);
  if (result == 0) t->tv_sec += jump(clock);
  return static_cast<int>(result);
}
int gettimeofday(timeval* t, void*) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec, t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t* t) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}

}  // extern "C"
