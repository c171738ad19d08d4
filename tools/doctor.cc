#include <fmt/format.h>
#include <omp.h>
#include <CLI/CLI.hpp>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/hub.h"
#include "kernels/device_info.h"
#include "tools/machine.h"
#include "tools/options.h"

namespace gsae {

namespace {

constexpr const char* kModel = "google/gemma-2-2b";  // what `train` runs when nothing is said

// Where something is, or why it is not there: for a doctor that is a finding, not a failure.
struct Finding {
  std::optional<std::string> path;
  std::string why;
};
template <class F> Finding look_for(F&& find) {
  try {
    return {find(), ""};
  } catch (const Error& e) {
    return {std::nullopt, e.what()};
  }
}

struct Diagnosis {
  Machine machine;
  int threads = 1;
  Peaks peaks;
  std::vector<DeviceInfo> gpus;
  std::string cuda_versions, cuda_why;
  Finding model, demo;
  std::string folder;       // the current one
  uintmax_t disk_free = 0;  // bytes there, for this user
};

Diagnosis diagnose() {
  Diagnosis d;
  d.machine = describe_machine();
  d.threads = omp_get_max_threads();
  d.gpus = cuda_devices();
  d.cuda_versions = cuda_versions();
  if (d.gpus.empty()) d.cuda_why = why_unavailable(Device::kCuda) + "; everything runs on the CPU";
  d.model = look_for([] { return find_model(kModel); });
  d.demo = look_for([] {
    const std::string folder = demo_folder();
    for (const char* file : {"/model/config.json", "/model/model.safetensors", "/corpus.jsonl.zst"})
      if (!std::filesystem::exists(folder + file))
        throw Error(fmt::format("{}{} is not there: restore it from the repository", folder, file));
    return folder;
  });
  std::error_code ignored;  // a folder that was removed under us: the path stays empty
  d.folder = std::filesystem::current_path(ignored).string();
  const std::filesystem::space_info space = std::filesystem::space(".", ignored);
  d.disk_free = ignored ? 0 : space.available;
  d.peaks = measure_cpu_peaks();
  return d;
}

nlohmann::json to_json(const Diagnosis& d) {
  const auto finding = [](const Finding& f) {
    nlohmann::json j{{"path", nullptr}};
    if (f.path) j["path"] = *f.path;
    else j["why"] = f.why;
    return j;
  };
  nlohmann::json j{
      {"version", GSAE_VERSION},
      {"cpu", d.machine.cpu},
      {"isa", d.machine.isa},
      {"processors", d.machine.processors},
      {"threads", d.threads},
      {"memory_bytes", d.machine.memory.total},
      {"memory_available_bytes", d.machine.memory.available},
      {"peak_f32_flops", d.peaks.f32},
      {"peak_bf16_flops", d.peaks.bf16},
      {"peak_bandwidth_bytes_per_second", d.peaks.bandwidth},
      {"cuda", {{"available", !d.gpus.empty()}, {"versions", d.cuda_versions}}},
      {"model", finding(d.model)},
      {"demo", finding(d.demo)},
      {"folder", d.folder},
      {"disk_free_bytes", d.disk_free},
  };
  j["model"]["id"] = kModel;
  if (d.gpus.empty()) j["cuda"]["why"] = d.cuda_why;
  for (const DeviceInfo& gpu : d.gpus)
    j["cuda"]["devices"].push_back({{"name", gpu.name},
                                    {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)},
                                    {"multiprocessors", gpu.multiprocessors},
                                    {"memory_bytes", gpu.memory_total},
                                    {"memory_available_bytes", gpu.memory_free},
                                    {"cache_bytes", gpu.cache}});
  return j;
}

void print(const Diagnosis& d) {
  constexpr double kGiB = 1 << 30;
  const auto line = [](std::string_view what, const std::string& text) { fmt::print("{:<12}{}\n", what, text); };
  fmt::print("gemma_sae {} on this machine\n\n", GSAE_VERSION);
  line("processor", fmt::format("{}, {}, {} processors, {} threads used", d.machine.cpu, d.machine.isa,
                                d.machine.processors, d.threads));
  line("memory", fmt::format("{:.1f} GiB, {:.1f} GiB available", double(d.machine.memory.total) / kGiB,
                             double(d.machine.memory.available) / kGiB));
  line("products", fmt::format("{:.0f} GFLOP/s f32, {:.0f} GFLOP/s bf16 (measured now; other work lowers it)",
                               d.peaks.f32 / 1e9, d.peaks.bf16 / 1e9));
  line("bandwidth", fmt::format("{:.1f} GB/s (measured now, triad)", d.peaks.bandwidth / 1e9));
  line("CUDA", d.gpus.empty() ? d.cuda_why : d.cuda_versions);
  for (size_t i = 0; i < d.gpus.size(); ++i) {
    const DeviceInfo& gpu = d.gpus[i];
    line(fmt::format("cuda:{}", i),
         fmt::format("{}, compute capability {}.{}, {} multiprocessors, {:.1f} GiB, {:.1f} GiB available", gpu.name,
                     gpu.major, gpu.minor, gpu.multiprocessors, double(gpu.memory_total) / kGiB,
                     double(gpu.memory_free) / kGiB));
  }
  line("model", d.model.path ? fmt::format("{} in {}", kModel, *d.model.path) : d.model.why);
  line("demo", d.demo.path ? fmt::format("model and corpus in {}", *d.demo.path) : d.demo.why);
  line("disk", fmt::format("{:.1f} GiB free in {}", double(d.disk_free) / kGiB, d.folder));
}

}  // namespace

void add_doctor(CLI::App& app) {
  struct Options {
    CommonOptions common;
    bool json = false;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("doctor", "says what this machine can do (takes about two seconds)");
  options->common.add(*command);
  command->add_flag("--json", options->json, "print one JSON object instead of the table");
  command->callback([options] {
    options->common.context();  // sets the threads; an Error for a device that is not there
    const Diagnosis d = diagnose();
    if (options->json) fmt::print("{}\n", to_json(d).dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    else print(d);
  });
}

}  // namespace gsae
