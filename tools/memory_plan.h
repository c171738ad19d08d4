#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gsae {

// What a run will hold in memory, by name, before it is allocated.
class MemoryPlan {
 public:
  void add(const std::string& what, int64_t bytes, const std::string& note = "");
  int64_t total() const;

  // A table, the total and what the machine has left.
  std::string table() const;
  // An Error with the table, and what makes it smaller, if the machine has less.
  void check() const;

 private:
  struct Part {
    std::string what, note;
    int64_t bytes;
  };
  std::vector<Part> parts_;
};

int64_t available_memory();               // bytes: MemAvailable, or the control group's limit where that is lower
int64_t peak_resident_memory();           // of this process so far
std::string format_bytes(int64_t bytes);  // "4.7 GiB"

}  // namespace gsae
