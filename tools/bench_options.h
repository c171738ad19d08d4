#pragma once

#include <cstdint>
#include <string>

#include "model/config.h"
#include "model/site.h"
#include "tools/options.h"

namespace gsae {

// The command line of `bench`, as typed. Empty: not given.
struct BenchOptions {
  CommonOptions common;
  std::string shape = "2b", layer, site = "res", width = "16k", l0, batch = "4096", context, model_batch, buffer;
  std::string steps, seconds, dtype = "bf16", precision = "bf16", json;
  bool eager = false, force = false;

  void add(CLI::App& command);
};

// What is measured, with every default filled in.
struct BenchPlan {
  std::string shape_name;
  GemmaConfig config;  // of the layers up to the tapped one: no others are built
  int64_t layer = 0;
  Site site = Site::kRes;
  int64_t context = 0;      // T
  int64_t model_batch = 0;  // contexts of a forward pass; 0: chosen by the device
  int64_t width = 0;        // F
  int64_t batch = 0;
  int64_t buffer = 0;  // rows; 0: chosen with the memory plan
  double l0 = 0;
  DType dtype = DType::kBF16, precision = DType::kBF16;  // of the model's products, of the SAE's
  bool tf32 = false;
  int64_t steps = 0;   // of each measurement; 0: by time
  double seconds = 0;  // of all measurements
};

// A UsageError says what an option may be.
BenchPlan plan_bench(const BenchOptions& options);

}  // namespace gsae
