#include "tools/progress.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace gsae {
namespace {

std::string content(std::FILE* f) {
  std::fflush(f);
  std::rewind(f);
  std::string text(4096, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), f));
  return text;
}

TEST(Progress, FitCountsCharactersNotBytes) {
  EXPECT_EQ(fit("abcdef", 4), "abcd");
  EXPECT_EQ(fit("abc", 4), "abc");
  EXPECT_EQ(fit("é▁ñx", 3), "é▁ñ");  // never half of a character
  EXPECT_EQ(fit("a\nb\tc\x1b", 10), "a b c ");
  EXPECT_EQ(fit("abc", 0), "");
  EXPECT_EQ(fit("abc", -1), "");
}

TEST(Progress, PlainLinesInAFile) {
  std::FILE* f = std::tmpfile();
  Progress p(false, f, 1000);
  EXPECT_FALSE(p.due());
  p.show("step 1");
  p.note("note");
  p.clear();
  EXPECT_EQ(content(f), "step 1\nnote\n");
  Progress at_once(false, f, 0);
  EXPECT_TRUE(at_once.due());
  std::fclose(f);
}

TEST(Progress, QuietSaysNothing) {
  std::FILE* f = std::tmpfile();
  Progress p(true, f, 0);
  EXPECT_FALSE(p.due());
  p.show("step 1");
  p.note("note");
  EXPECT_EQ(content(f), "");
  std::fclose(f);
}

// A pseudo-terminal: the line is rewritten in place, cut to the width, and erased before a note.
TEST(Progress, OneLineOnATerminal) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(master, 0);
  ASSERT_EQ(grantpt(master), 0);
  ASSERT_EQ(unlockpt(master), 0);
  const winsize size{.ws_row = 24, .ws_col = 13, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(ioctl(master, TIOCSWINSZ, &size), 0);
  std::FILE* f = std::fopen(ptsname(master), "w");
  ASSERT_NE(f, nullptr);
  {
    Progress p(false, f);
    p.show(std::string(200, 'x'));
    p.show("short");
    p.note("done");
    p.show("again");
  }
  std::fclose(f);
  std::FILE* m = fdopen(master, "r");
  std::string got;
  for (int c; got.find("again\x1b[K\r\x1b[K") == got.npos && (c = std::fgetc(m)) != EOF;) got += static_cast<char>(c);
  std::fclose(m);
  EXPECT_EQ(got, "\rxxxxxxxxxxxx\x1b[K\rshort\x1b[K\r\x1b[Kdone\r\n\ragain\x1b[K\r\x1b[K");
}

}  // namespace
}  // namespace gsae
