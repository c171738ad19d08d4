#pragma once

#include <cstddef>
#include <string>

namespace gsae {

struct SystemMemory {
  size_t total = 0;      // bytes
  size_t available = 0;  // bytes that can be allocated without swapping; the page cache counts as free
};

// Of the machine (/proc/meminfo), or of the control group (v2, memory.max of the own group and those
// above it) that this process runs in, where that allows less. `root` precedes the paths, for tests.
SystemMemory system_memory(const std::string& root = "");

}  // namespace gsae
