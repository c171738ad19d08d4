#include "tests/paths.h"

#include <cstdlib>
#include <filesystem>
#include <initializer_list>

#include "kernels/check.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;

std::string find(const char* variable, std::initializer_list<fs::path> places) {
  if (const char* given = std::getenv(variable); given && *given) return given;
  const fs::path beside = fs::read_symlink("/proc/self/exe").parent_path();
  for (const fs::path& place : places)  // an absolute one stays as it is
    if (fs::exists(beside / place)) return (beside / place).lexically_normal().string();
  throw Error(std::string("the tests find nothing beside ") + beside.string() + ": set " + variable);
}

}  // namespace

std::string test_data(const std::string& name) {
  static const std::string folder = find("GSAE_TEST_DATA", {"data", GSAE_SOURCE_DIR "/tests/data"});
  return name.empty() ? folder : folder + "/" + name;
}

std::string demo_data(const std::string& name) {
  static const std::string folder = find("GSAE_DEMO", {"../share/gemma_sae/demo", GSAE_SOURCE_DIR "/tools/demo"});
  return name.empty() ? folder : folder + "/" + name;
}

const std::string& gemma_sae_binary() {
  static const std::string binary = find("GSAE_BINARY", {"../gemma_sae", "../bin/gemma_sae"});
  return binary;
}

std::string source_file(const std::string& name) {
  const std::string path = std::string(GSAE_SOURCE_DIR) + "/" + name;
  return fs::exists(path) ? path : "";
}

std::string faults_library() {
  try {
    return find("GSAE_FAULTS", {"libgsae_faults.so"});
  } catch (const Error&) {
    return "";
  }
}

const std::string& gpu_check_script() {
  static const std::string script = find("GSAE_CHECK", {"../gpu_check.sh", GSAE_SOURCE_DIR "/tools/gpu_check.sh"});
  return script;
}

}  // namespace gsae::test
