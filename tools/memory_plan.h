#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/context.h"

namespace gsae {

// What a run will hold in memory, by name, before it is allocated. On the CPU there is one memory; beside a GPU the
// plan is about the GPU's, and lists what the host holds apart from it. The machine need not be this one.
class MemoryPlan {
 public:
  struct Part {
    std::string what, note;
    int64_t bytes = 0;
    bool on_host = false;  // beside a GPU's memory
  };

  MemoryPlan() = default;
  MemoryPlan(Device device, int64_t available, const std::string& name);  // name: "cuda:0", for the table
  explicit MemoryPlan(const Context& ctx);                                // takes note of what is free now

  void add(const std::string& what, int64_t bytes, const std::string& note = "");       // on the device
  void add_host(const std::string& what, int64_t bytes, const std::string& note = "");  // in the host's memory

  Device device() const { return device_; }
  int64_t total() const { return sum(false); }      // of the device
  int64_t host_total() const { return sum(true); }  // of the host, beside a GPU
  int64_t available() const { return available_; }
  int64_t left() const { return available_ - total(); }
  bool fits() const { return left() >= 0; }
  const std::vector<Part>& parts() const { return parts_; }

  // A table, the total and what the device has.
  std::string table() const;
  // An Error with the table, and what would make it smaller, if there is less.
  void check(const std::string& remedy = "choose a smaller --buffer, --batch or --width") const;

 private:
  int64_t sum(bool on_host) const;

  Device device_ = Device::kCpu;
  std::string name_ = "memory";
  int64_t available_ = 0;
  std::vector<Part> parts_;
};

// Bytes free on a device: of the CPU MemAvailable, or the control group's limit where that is lower.
int64_t available_memory(const Context& ctx);
int64_t resident_memory();                // of this process now
int64_t peak_resident_memory();           // and at most so far
std::string format_bytes(int64_t bytes);  // "4.7 GiB"

}  // namespace gsae
