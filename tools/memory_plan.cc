#include "tools/memory_plan.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include "io/system_memory.h"
#include "kernels/check.h"
#include "kernels/device_info.h"

namespace gsae {

MemoryPlan::MemoryPlan(const Context& ctx)
    : one_memory_(ctx.device() == Device::kCpu), available_(available_memory(ctx)) {
  if (!one_memory_) device_ = fmt::format("cuda:{}", ctx.index());
}

void MemoryPlan::add(const std::string& what, int64_t bytes, const std::string& note) {
  parts_.push_back({what, note, bytes, false});
}

void MemoryPlan::add_host(const std::string& what, int64_t bytes, const std::string& note) {
  parts_.push_back({what, note, bytes, !one_memory_});
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
  std::string text = one_memory_ ? "memory plan\n" : fmt::format("memory plan of {}\n", device_);
  for (const Part& p : parts_)
    if (!p.on_host) text += part(p);
  text += fmt::format("  {:<28} {:>10}  of {} available", "total", format_bytes(total()), format_bytes(available_));
  if (one_memory_) return text;
  text += "\nbeside it, in the host's memory\n";
  for (const Part& p : parts_)
    if (p.on_host) text += part(p);
  text.pop_back();
  return text;
}

void MemoryPlan::check(const std::string& remedy) const {
  if (total() <= available_) return;
  throw Error(fmt::format("{}\nthis does not fit: choose {}", table(), remedy));
}

int64_t available_memory(const Context& ctx) {
  return static_cast<int64_t>(ctx.device() == Device::kCpu ? system_memory().available : cuda_memory_free());
}

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
