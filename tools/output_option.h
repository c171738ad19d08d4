#pragma once

#include <string>

namespace gsae {

// What would keep a command from writing its results is found before the work.

// An Error if `path` cannot be written, or is there and not to be replaced.
void require_new_file(const std::string& option, const std::string& path, bool force);

// An Error if it is there and holds something, or if it cannot be created.
void require_empty_folder(const std::string& option, const std::string& dir);

}  // namespace gsae
