// tools/gpu_check.sh, on whatever this machine has: without a GPU it must say so in seconds, with one, be it the emulated
// one, run through. What a GPU shows is its own business.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kernels/context.h"
#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

struct Checked {
  int status = -1;
  std::string text, markdown;
  nlohmann::json json;

  nlohmann::json part(const std::string& name) const {
    for (const nlohmann::json& part : json["parts"])
      if (part["name"] == name) return part;
    throw Error("no part " + name + " in " + json.dump());
  }
};

Checked gpu_check(const std::string& arguments) {
  const TempFolder folder;
  const std::string line = gpu_check_script() + " --quick --jobs 1 --out '" + (folder / "a 'b\" $c") + "' " + arguments;
  return {};
}

}  // namespace
}  // namespace gsae::test
