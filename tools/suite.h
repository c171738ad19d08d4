#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/site.h"

namespace gsae {

// One SAE of a run: the place that it reads, its width, and how sparse it is to be.
struct SuiteMember {
  Site site = Site::kRes;
  int64_t layer = 0;
  int64_t latents = 0;  // F
  double l0 = 0;        // asked for; 0: lambda is the plain coefficient
  double lambda = 0;    // given; 0 beside an l0: a controller finds it

  // What train.jsonl, tables and config.json call it; no two of a suite share one: "res.3/4k/l0_32",
  // "res.3/4k/lambda_0.0006", or, given both, "res.3/4k/l0_32_lambda_0.0006".
  std::string name() const;
};

// The lists of a command line, whose product is the suite.
struct SuiteLists {
  std::vector<int64_t> layers;
  std::vector<Site> sites;
  std::vector<int64_t> widths;  // latents
  std::vector<double> l0s;      // empty: lambdas alone
  std::vector<double> lambdas;  // empty: l0s alone
};

constexpr int64_t kMostSaes = 4096;

// The product, by layer, then site in the order in which the model reaches them, then width, then sparsity: SAEs of one
// place are neighbours. A UsageError if there are more than kMostSaes.
std::vector<SuiteMember> make_suite(const SuiteLists& lists);

// The places (a layer's site) that a suite reads, and its sites, whatever the layer.
int64_t count_places(std::span<const SuiteMember> suite);
int64_t count_sites(std::span<const SuiteMember> suite);

// What a suite is called where one word has to do, the default folder of its run: "res_layer_3_width_4k_l0_32", or
// "att+res_layer_0-25_width_16k-64k_l0_40-160".
std::string suite_name(std::span<const SuiteMember> suite);

}  // namespace gsae
