#pragma once

#include <string>
#include <vector>

namespace gsae {

// The names of what lies at `paths`, each made to differ from all others. Those of one name get the part in which
// their paths differ, "run (a)" and "run (b)" of a/run and b/run; what is at one path, or at none (empty), a number.
std::vector<std::string> distinct_names(std::vector<std::string> names, const std::vector<std::string>& paths);

}  // namespace gsae
