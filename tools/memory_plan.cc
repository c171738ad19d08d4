#include "tools/memory_plan.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "io/system_memory.h"
#include "kernels/check.h"
#include "kernels/device_info.h"

namespace gsae {

namespace {

// Pages of this process, and those of them that belong to files: the page cache, which counts as free.
struct Pages {
  int64_t resident = 0, of_files = 0;
};
Pages resident_pages() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0;
  Pages p;
  file >> size >> p.resident >> p.of_files;
  return p;
}

}  // namespace

MemoryPlan::MemoryPlan(Device device, int64_t available, const std::string& name)
    : device_(device), name_(name), available_(available) {}

MemoryPlan::MemoryPlan(const Context& ctx) : MemoryPlan(ctx.device(), available_memory(ctx), "memory") {
  if (device_ == Device::kCuda) name_ = fmt::format("cuda:{}", ctx.index());
  // The plan names what the process holds already, which is no longer available to others.
  else available_ += (resident_pages().resident - resident_pages().of_files) * sysconf(_SC_PAGESIZE);
}

void MemoryPlan::add(const std::string& what, int64_t bytes, const std::string& note) {
  parts_.push_back({what, note, bytes, false});
}

void MemoryPlan::add_host(const std::string& what, int64_t bytes, const std::string& note) {
  parts_.push_back({what, note, bytes, device_ == Device::kCuda});
}

int64_t MemoryPlan::sum(bool on_host) const {
  int64_t sum = 0;
  for (const Part& p : parts_) sum += p.on_host == on_host ? p.bytes : 0;
  return sum;
}

std::string MemoryPlan::table() const {
  const auto part = [](const Part& p) {
    return fmt::format("  {:<28} {:>10}  {}\n", p.what, format_bytes(p.bytes), p.note);
  };
  std::string text = device_ == Device::kCpu ? "memory plan\n" : fmt::format("memory plan of {}\n", name_);
  for (const Part& p : parts_)
    if (!p.on_host) text += part(p);
  text += fmt::format("  {:<28} {:>10}  of {} available", "total", format_bytes(total()), format_bytes(available_));
  if (device_ == Device::kCpu) return text;
  text += "\nbeside it, in the host's memory\n";
  for (const Part& p : parts_)
    if (p.on_host) text += part(p);
  text.pop_back();
  return text;
}

void MemoryPlan::check(const std::string& remedy) const {
  if (!fits()) throw Error(fmt::format("{}\nthis does not fit: {}", table(), remedy));
}

int64_t available_memory(const Context& ctx) {
  return static_cast<int64_t>(ctx.device() == Device::kCpu ? system_memory().available : cuda_memory_free());
}

int64_t resident_memory() { return resident_pages().resident * sysconf(_SC_PAGESIZE); }

int64_t peak_resident_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

std::string format_bytes(int64_t bytes) {
  if (bytes >= int64_t{1} << 30) return fmt::format("{:.2f} GiB", double(bytes) / double(1 << 30));
  if (bytes >= 1 << 20) return fmt::format("{:.1f} MiB", double(bytes) / double(1 << 20));
  return fmt::format("{:.1f} KiB", double(bytes) / 1024);
}

}  // namespace gsae
