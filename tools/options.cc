#include "tools/options.h"

#include <fmt/format.h>
#include <omp.h>
#include <CLI/CLI.hpp>

#include <charconv>
#include <cmath>
#include <limits>
#include <thread>

namespace gsae {

namespace {

// 64 bits without a sign: the library turns -1 and what is too large into the largest.
std::string refuse_seed(const std::string& text) {
  uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error == std::errc() && end == text.data() + text.size()) return {};
  return fmt::format("{}: must be a whole number from 0 to {}", text, std::numeric_limits<uint64_t>::max());
}

}  // namespace

void CommonOptions::add(CLI::App& command) {
  command.add_option("--device", device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command.add_option("--threads", threads, "processor threads; 0: all of them")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command.add_option("--seed", seed, "of everything random")
      ->check(CLI::Validator(refuse_seed, ""))
      ->capture_default_str();
  command.add_flag("--quiet", quiet, "print errors and results only");
}

namespace {

// "cuda" -> 0, "cuda:2" -> 2; -1 for anything else
int gpu_index(const std::string& device) {
  if (device == "cuda") return 0;
  int index = -1;
  if (!device.starts_with("cuda:")) return -1;
  const char *begin = device.data() + 5, *end = device.data() + device.size();
  const auto [stop, error] = std::from_chars(begin, end, index);
  return error == std::errc() && stop == end && *begin != '-' ? index : -1;
}

}  // namespace

Context CommonOptions::context() const {
  const int index = gpu_index(device);
  if (device != "auto" && device != "cpu" && index < 0)
    throw UsageError(fmt::format("--device {}: must be auto, cpu, cuda or cuda:N", device));
  omp_set_num_threads(threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  if (device == "auto" && cuda_backend() == CudaBackend::kGpu && available(Device::kCuda))
    return Context(Device::kCuda);
  if (index < 0) return Context(Device::kCpu);
  if (const std::string why = why_unavailable(Device::kCuda); !why.empty())
    throw Error(fmt::format("--device {}: {}; --device cpu runs everywhere", device, why));
  return Context(Device::kCuda, index);
}

namespace {

int64_t parse_suffixed(const std::string& text, const char* what, const char* example, int64_t kilo) {
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  double scale = 1;
  if (used + 1 == text.size()) {
    switch (std::tolower(static_cast<unsigned char>(text[used]))) {
      case 'k': scale = double(kilo); break;
      case 'm': scale = double(kilo) * double(kilo); break;
      case 'g': scale = double(kilo) * double(kilo) * double(kilo); break;
      default: used = 0;
    }
  } else if (used != text.size()) {
    used = 0;
  }
  const double n = value * scale;
  if (used == 0 || !std::isfinite(n) || n != std::floor(n) || std::fabs(n) > 9e15)
    throw UsageError(fmt::format("{} '{}': must be a whole number such as {}", what, text, example));
  return static_cast<int64_t>(n);
}

}  // namespace

int64_t parse_width(const std::string& text) { return parse_suffixed(text, "width", "4096, 16k or 1m", 1024); }
int64_t parse_count(const std::string& text) { return parse_suffixed(text, "count", "1000, 500M or 2G", 1000); }

double parse_number(const char* option, const std::string& text, double low, double high) {
  size_t used = 0;
  double value = NAN;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {}
  if (used != text.size() || !(value >= low && value <= high))
    throw UsageError(fmt::format("{} {}: must be a number from {:g} to {:g}", option, text, low, high));
  return value;
}

CLI::Validator number_range(double low, double high, bool above) {
  const std::string range =
      above ? fmt::format("above {:g}, at most {:g}", low, high) : fmt::format("from {:g} to {:g}", low, high);
  const auto refuse = [=](const std::string& text) -> std::string {
    double value = NAN;
    if (CLI::detail::lexical_cast(text, value) && (above ? value > low : value >= low) && value <= high) return {};
    return fmt::format("{}: must be a number {}", text, range);
  };
  return CLI::Validator(refuse, range);
}

int64_t parse_whole(const char* option, const std::string& text, int64_t low, int64_t high) {
  int64_t n = 0;
  try {
    n = parse_count(text);
  } catch (const UsageError& e) {
    throw UsageError(fmt::format("{}: {}", option, e.what()));
  }
  if (n < low) throw UsageError(fmt::format("{} {}: must be at least {}", option, text, low));
  if (n > high) throw UsageError(fmt::format("{} {}: must be at most {}", option, text, high));
  return n;
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t comma = text.find(',', begin);
    parts.push_back(text.substr(begin, comma - begin));
    if (comma == text.npos) return parts;
    begin = comma + 1;
  }
}

std::string format_width(int64_t width) {
  if (width > 0 && width % (1 << 20) == 0) return fmt::format("{}m", width >> 20);
  if (width > 0 && width % 1024 == 0) return fmt::format("{}k", width >> 10);
  return fmt::format("{}", width);
}

std::string format_count(double count) {
  if (count >= 1e9) return fmt::format("{:.1f}G", count / 1e9);
  if (count >= 1e6) return fmt::format("{:.1f}M", count / 1e6);
  if (count >= 1e3) return fmt::format("{:.1f}k", count / 1e3);
  return fmt::format("{:.0f}", count);
}

}  // namespace gsae
