#pragma once

#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {

struct CommandResult {
  int status = -1;  // exit status; -1 if it was killed
  std::string out, err;
};

// Runs ./gemma_sae ARGUMENTS, each passed as it is, and waits. One thread, unless the arguments say
// otherwise: the tests themselves run in parallel, and threads that wait for each other on a busy
// machine take many times as long.
inline CommandResult run_command(std::vector<std::string> arguments) {
  if (std::find(arguments.begin(), arguments.end(), "--threads") == arguments.end())
    arguments.insert(arguments.end(), {"--threads", "1"});
  const TempFolder dir;
  std::string line = gemma_sae_binary();
  for (const std::string& argument : arguments) {
    line += " '";
    for (const char c : argument) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += "'";
  }
  line += " >" + (dir / "out") + " 2>" + (dir / "err") + " </dev/null";
  const int status = std::system(line.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_bytes(dir / "out"), read_bytes(dir / "err")};
}

}  // namespace gsae::test
