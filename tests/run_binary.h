#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {

struct Outcome {
  int status = -1;  // as the shell says it: 128 + n for signal n
  std::string out, err;
};

// gemma_sae with these arguments, running. `environment` replaces variables; `input` is its standard input, and
// `output` its standard output, if not a file that Outcome holds in the end. At the end of the scope it is killed.
class RunningBinary {
 public:
  explicit RunningBinary(const std::vector<std::string>& arguments,
                         const std::map<std::string, std::string>& environment = {}, const std::string& input = "",
                         int output = -1)
      : out_(folder_ / "out"), err_(folder_ / "err") {  // not pipes: a program that writes much to both never waits
    const std::string in = folder_ / "in";
    write_bytes(in, input);
    write_bytes(out_, "");

    std::map<std::string, std::string> variables;
    for (char** entry = environ; *entry; ++entry) {
      const std::string text = *entry;
      variables[text.substr(0, text.find('='))] = text;
    }
    for (const auto& [name, value] : environment) variables[name] = name + "=" + value;
    std::vector<char*> env, argv;
    for (auto& [name, text] : variables) env.push_back(text.data());
    std::vector<std::string> words{gemma_sae_binary()};
    words.insert(words.end(), arguments.begin(), arguments.end());
    for (std::string& word : words) argv.push_back(word.data());
    env.push_back(nullptr), argv.push_back(nullptr);

    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, in.c_str(), O_RDONLY, 0);
    if (output >= 0) posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    else posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, out_.c_str(), O_WRONLY, 0600);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, err_.c_str(), O_WRONLY | O_CREAT, 0600);
    const int failed = posix_spawn(&child_, words[0].c_str(), &files, nullptr, argv.data(), env.data());
    posix_spawn_file_actions_destroy(&files);
    if (failed) throw Error("cannot run " + words[0] + ": " + std::strerror(failed));
  }
  ~RunningBinary() {
    if (child_ == 0) return;
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  RunningBinary(const RunningBinary&) = delete;
  RunningBinary& operator=(const RunningBinary&) = delete;

  void signal(int number) const { kill(child_, number); }
  std::string out() const { return read_bytes(out_); }  // so far

  Outcome wait() {
    int state = 0;
    while (waitpid(child_, &state, 0) < 0 && errno == EINTR) {}
    child_ = 0;
    return {WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state), read_bytes(out_), read_bytes(err_)};
  }

 private:
  const TempFolder folder_;
  std::string out_, err_;
  pid_t child_ = 0;
};

// Runs it to its end.
inline Outcome run_binary(const std::vector<std::string>& arguments,
                          const std::map<std::string, std::string>& environment = {}, const std::string& input = "") {
  return RunningBinary(arguments, environment, input).wait();
}

// The run ended with this status and its standard error has each of the parts; a crash would be another status.
inline void expect_outcome(const Outcome& outcome, int status, const std::vector<std::string>& parts = {}) {
  EXPECT_EQ(outcome.status, status) << outcome.err;
  for (const std::string& part : parts)
    EXPECT_NE(outcome.err.find(part), std::string::npos) << "'" << part << "' is not in: " << outcome.err;
}

}  // namespace gsae::test
