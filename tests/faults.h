#pragma once

#include <map>
#include <string>

#include "tests/paths.h"
#include "tests/small_run.h"

namespace gsae::test {

// The environment of a run whose system fails on its folder `run`: see tests/faults/interpose.cc.
inline std::map<std::string, std::string> faulty(const std::string& run, std::map<std::string, std::string> variables) {
  const char* asan = std::getenv("ASAN_OPTIONS");
  variables["ASAN_OPTIONS"] = (asan ? asan + std::string(":") : "") + "verify_asan_link_order=0";
  variables["LD_PRELOAD"] = faults_library();
  variables["GSAE_FAULT_PATHS"] = run;
  return variables;
}

// For SetUp(): in a bundle there is no such library.
inline void require_faults() {
  if (faults_library().empty()) GTEST_SKIP() << "libgsae_faults.so is not beside the test";
}

// What is there under a checkpoint's name is whole.
inline void expect_whole_checkpoints(const std::string& run) {
  for (const std::string& name : list_checkpoints(run + "/checkpoints"))
    EXPECT_NO_THROW(Checkpoint(run + "/checkpoints/" + name)) << name;
}

}  // namespace gsae::test
