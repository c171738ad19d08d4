#include "tools/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "tools/console.h"

namespace gsae {

namespace {

int columns(std::FILE* out) {
  winsize size{};
  if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

constexpr double kTerminalInterval = 0.1;  // seconds: fluent to the eye, nothing to the terminal

}  // namespace

Progress::Progress(bool quiet, std::FILE* out, double plain_interval_seconds)
    : quiet_(quiet), terminal_(isatty(fileno(out)) == 1), out_(out) {
  const std::chrono::duration<double> seconds(terminal_ ? kTerminalInterval : plain_interval_seconds);
  interval_ = std::chrono::duration_cast<Clock::duration>(seconds);
  next_ = Clock::now() + interval_;
}

bool Progress::due() const { return !quiet_ && Clock::now() >= next_; }

void Progress::show(std::string_view line) {
  if (quiet_) return;
  next_ = Clock::now() + interval_;
  if (terminal_) {
    // One column stays free: writing into the last one wraps on some terminals.
    print(out_, fmt::format("\r{}\x1b[K", fit(line, columns(out_) - 1)));
    shown_ = true;
  } else {
    print(out_, fmt::format("{}\n", line));
  }
}

void Progress::note(std::string_view line) {
  if (quiet_) return;
  clear();
  print(out_, fmt::format("{}\n", line));
}

void Progress::clear() {
  if (!shown_) return;
  print(out_, "\r\x1b[K");
  shown_ = false;
}

std::string fit(std::string_view text, int columns) {
  std::string out;
  int used = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool continues = (byte & 0xc0) == 0x80;  // of a character that began before
    if (!continues && ++used > std::max(columns, 0)) break;
    out += byte < 0x20 || byte == 0x7f ? ' ' : c;
  }
  return out;
}

}  // namespace gsae
