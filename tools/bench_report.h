#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "tools/bench_options.h"

namespace gsae {

// What the device could do at its best. Infinite: unknown.
struct Roofs {
  double model_peak = 0, sae_peak = 0;  // FLOP/s of the products of each, measured
  double bandwidth = 0;                 // bytes/s of a copy, measured
  double published = 0;                 // FLOP/s of dense bf16 products, by the maker's data sheet
};

// FLOP/s of dense bf16 products with f32 sums as the maker's data sheet has them, by the name that the device gives
// itself; infinite if it is none of those known here, or a part of one (MIG).
double published_bf16_peak(const std::string& device);

struct BenchResult {
  BenchPlan plan;
  std::string device;             // "cuda:0, NVIDIA H200", "cpu, AMD EPYC 9575F, 2 threads"
  int64_t d = 0, layers = 0;      // inputs of the SAE; layers of the whole model
  int64_t contexts = 0;           // of a forward pass
  int64_t pass_rows = 0;          // activations that one brings: BOS is computed, not trained on
  double flops_per_token = 0;     // of the forward pass
  double l0 = 0;                  // measured
  int64_t planned = 0, used = 0;  // bytes
  Roofs roofs;

  struct Interval {
    int64_t passes = 0, steps = 0;
    double seconds = 0;
  };
  Interval forward, sae, whole;
};

// One line of the table: how fast, and how fast at the roof.
struct Speed {
  double per_second = 0, roof = 0;  // tokens, or activations trained on; roof infinite: unknown
  double flops = 0;                 // FLOP/s
  double mfu = 0;                   // what the FLOP would take at the measured peaks, of the time it took; 0: unknown
  double published_mfu = 0;         // the same at the published peak

  double roof_fraction() const { return per_second / roof; }  // 0: unknown
};

Speed forward_speed(const BenchResult& r);  // tokens, BOS included
Speed sae_speed(const BenchResult& r);      // activations
// Activations, each computed and trained on once: where the passes of the interval brought a fraction of a pass more or
// less than its steps took, that much is taken off or added, at the speed of the forward pass alone.
Speed whole_speed(const BenchResult& r);

std::string bench_table(const BenchResult& r);
nlohmann::ordered_json bench_json(const BenchResult& r);

}  // namespace gsae
