#pragma once

#include <cstdint>
#include <string>

#include "tools/device_preset.h"
#include "tools/options.h"
#include "tools/run_plan.h"

namespace gsae {

// The command line of `plan`, as typed. Empty: not given.
struct PlanOptions {
  CommonOptions common;
  std::string shape, model;
  std::string gpu, device_memory, peak_flops, bandwidth;
  std::string layer, site = "res", width = "16k", l0 = "80", batch = "4096", context, model_batch, buffer;
  std::string dtype = "bf16", precision = "bf16", tokens = "500M", json;
  int64_t eval_contexts = 2048;
  bool force = false;

  void add(CLI::App& command);
  bool elsewhere() const { return !gpu.empty() || !device_memory.empty(); }  // a machine that need not be there
  bool tf32() const { return precision == "tf32"; }
};

// What is planned, with every default filled in but the machine.
struct PlannedRun {
  std::string model;  // as it is called
  ModelRun run;
  RunChoices choices;
};
// A UsageError says what an option may be. Reads config.json of a --model, nothing else of it.
PlannedRun planned_run(const PlanOptions& options);

// A machine: its memory, beside what is there already, and its speed.
struct PlannedMachine {
  std::string title;  // "H200 141GB SXM: 141 GiB, 989 TFLOP/s, ..."
  MemoryPlan memory;
  DeviceSpeed speed;
};
// The one that --gpu, --device-memory, --peak-flops and --bandwidth describe.
PlannedMachine described_machine(const PlanOptions& options);

}  // namespace gsae
