#pragma once

#include <string>

namespace gsae::test {

// Where the tests find what they need, in a build folder and in a bundle that was moved elsewhere: what the environment
// says, else beside the running test, else (data only) the source tree that it was built from.

// $GSAE_TEST_DATA, data/ beside the test, tests/data: goldens and files in other programs' formats.
std::string test_data(const std::string& name = "");
// $GSAE_DEMO, ../share/gemma_sae/demo beside the test, tools/demo: the bundled model and corpus.
std::string demo_data(const std::string& name = "");
// $GSAE_BINARY, ../gemma_sae or ../bin/gemma_sae beside the test.
const std::string& gemma_sae_binary();
// $GSAE_FAULTS, libgsae_faults.so beside the test (tests/faults/interpose.cc); empty: it is not there, as in a bundle.
std::string faults_library();
// $GSAE_CHECK, ../gpu_check.sh beside the test, tools/gpu_check.sh
const std::string& gpu_check_script();
// A file or folder of the source tree that this was built from: README.md, docs. Empty where that is not there.
std::string source_file(const std::string& name);

}  // namespace gsae::test
