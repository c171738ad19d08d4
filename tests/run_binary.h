#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/files.h"

namespace gsae::test {

struct Outcome {
  int status = -1;  // as the shell says it: 128 + n for signal n
  std::string out, err;
};

// Runs gemma_sae with these arguments to its end. `environment` replaces variables; `input` is its standard input.
inline Outcome run_binary(const std::vector<std::string>& arguments,
                          const std::map<std::string, std::string>& environment = {}, const std::string& input = "") {
  const TempFolder folder;  // files, not pipes: a program that writes much to both never waits for us
  const std::string in = folder / "in", out = folder / "out", err = folder / "err";
  write_bytes(in, input);

  std::map<std::string, std::string> variables;
  for (char** entry = environ; *entry; ++entry) {
    const std::string text = *entry;
    variables[text.substr(0, text.find('='))] = text;
  }
  for (const auto& [name, value] : environment) variables[name] = name + "=" + value;
  std::vector<char*> env, argv;
  for (auto& [name, text] : variables) env.push_back(text.data());
  std::vector<std::string> words{GSAE_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  for (std::string& word : words) argv.push_back(word.data());
  env.push_back(nullptr), argv.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, out.c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&files, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT, 0600);
  pid_t child = 0;
  const int failed = posix_spawn(&child, GSAE_BINARY, &files, nullptr, argv.data(), env.data());
  posix_spawn_file_actions_destroy(&files);
  if (failed) throw Error(std::string("cannot run ") + GSAE_BINARY + ": " + std::strerror(failed));
  int state = 0;
  while (waitpid(child, &state, 0) < 0 && errno == EINTR) {}
  return {WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state), read_bytes(out), read_bytes(err)};
}

// The run ended with this status and its standard error has each of the parts; a crash would be another status.
inline void expect_outcome(const Outcome& outcome, int status, const std::vector<std::string>& parts = {}) {
  EXPECT_EQ(outcome.status, status) << outcome.err;
  for (const std::string& part : parts)
    EXPECT_NE(outcome.err.find(part), std::string::npos) << "'" << part << "' is not in: " << outcome.err;
}

}  // namespace gsae::test
