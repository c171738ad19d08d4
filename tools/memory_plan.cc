#include "tools/memory_plan.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include "io/system_memory.h"
#include "kernels/check.h"

namespace gsae {

void MemoryPlan::add(const std::string& what, int64_t bytes, const std::string& note) {
  parts_.push_back({what, note, bytes});
}

int64_t MemoryPlan::total() const {
  int64_t sum = 0;
  for (const Part& p : parts_) sum += p.bytes;
  return sum;
}

std::string MemoryPlan::table() const {
  std::string text = "memory plan\n";
  for (const Part& p : parts_) text += fmt::format("  {:<28} {:>10}  {}\n", p.what, format_bytes(p.bytes), p.note);
  text +=
      fmt::format("  {:<28} {:>10}  of {} available", "total", format_bytes(total()), format_bytes(available_memory()));
  return text;
}

void MemoryPlan::check() const {
  if (total() <= available_memory()) return;
  throw Error(fmt::format("{}\nthis does not fit: choose a smaller --buffer, --batch or --width", table()));
}

int64_t available_memory() { return static_cast<int64_t>(system_memory().available); }

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
