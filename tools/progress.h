#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

namespace gsae {

// What a long run says while it works. On a terminal: one line, rewritten in place, cut to the
// terminal's width, erased before anything else is printed. Elsewhere (a log file): a plain line at
// intervals. Nothing with quiet, except what has to be said.
//
//   if (progress.due()) progress.show(line());    // the line is only put together when it is shown
class Progress {
 public:
  explicit Progress(bool quiet, std::FILE* out = stderr, double plain_interval_seconds = 10);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  bool due() const;
  void show(std::string_view line);  // whether due or not
  void note(std::string_view line);  // a line that stays; nothing with quiet
  void clear();                      // erases the line: before others print

 private:
  using Clock = std::chrono::steady_clock;

  bool quiet_, terminal_, shown_ = false;
  std::FILE* out_;
  Clock::duration interval_;
  Clock::time_point next_;
};

// The first `columns` characters of UTF-8 text, each counted as one column; control characters, which
// would move the cursor, become spaces.
std::string fit(std::string_view text, int columns);

}  // namespace gsae
