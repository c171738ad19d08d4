#include "tools/run_sizes.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "sae/sae_trainer.h"
#include "sae/start.h"
#include "sae/step_workspace.h"
#include "tools/lay_out.h"
#include "tools/options.h"

namespace gsae {

int64_t process_bytes() {
  constexpr int64_t kLater = int64_t{64} << 20;  // of the demo model on two threads: 50 to 75 MiB
  return resident_memory() + kLater;
}

// Enough rows for the products; on the CPU few enough that activations stay near it.
int64_t contexts_of_pass(Device device, int64_t asked, int64_t T) {
  if (asked > 0) return asked;
  return std::max<int64_t>(1, (device == Device::kCpu ? 1024 : 8192) / T);
}

bool same_place(const SaeShape& a, const SaeShape& b) {
  return a.place.site == b.place.site && a.place.layer == b.place.layer;
}

std::vector<SaeShape> places_of(const std::vector<SaeShape>& saes) {
  std::vector<SaeShape> places;
  for (const SaeShape& s : saes)
    if (std::none_of(places.begin(), places.end(), [&](const SaeShape& p) { return same_place(p, s); }))
      places.push_back(s);
  return places;
}

namespace {

constexpr int64_t kOrderBytes = 8;  // of a row in the buffer: where it is, on the host

int64_t state_bytes(int64_t d, int64_t F, DType precision) { return measure<SaeState>(d, F, precision); }

int64_t workspace_bytes(Device device, int64_t batch, int64_t d, int64_t F, DType precision) {
  return measure<StepWorkspace>(step_sizes(device, batch, d, F), d, F, precision);
}

int64_t aligned(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// --buffer, or as many as are wanted and fit, with some of the memory left for what no plan knows.
int64_t buffer_rows(const SuiteSizes& s, int64_t row_bytes, int64_t left, const MemoryPlan& plan) {
  // As long as less than a batch is held, there has to be room for what arrives at once.
  const int64_t least = s.chunk + s.batch;
  if (s.asked == 0) {
    // The CPU's is other programs' memory too.
    const int64_t spare = plan.available() / (plan.device() == Device::kCpu ? 16 : 32);
    const int64_t fit = (left - spare) / row_bytes;
    const int64_t fewest = std::max(least, std::min(s.wanted, kFewestBatches * s.batch));
    return std::max(fewest, std::min(s.wanted, fit));
  }
  if (s.asked < least)
    throw UsageError(
        fmt::format("--buffer {}: must be at least {} activations (a batch and what arrives at once)", s.asked, least));
  return std::min(s.asked, s.most + least);  // there are no more rows than that
}

}  // namespace

SuitePlan plan_suite(Device device, MemoryPlan& plan, const SuiteSizes& s) {
  std::map<std::pair<int64_t, int64_t>, int64_t> sizes;  // (d, F) -> how many SAEs: a suite has few
  for (const SaeShape& sae : s.saes) ++sizes[{sae.width, sae.latents}];
  int64_t states = 0, workspace = 0, result = 0;
  for (const auto& [size, count] : sizes) {
    const auto [d, F] = size;
    states += count * state_bytes(d, F, s.precision);
    workspace = std::max(workspace, workspace_bytes(device, s.batch, d, F, s.precision));
    result = std::max({result, measure<SaeParameters>(d, F), start_bytes(step_sizes(device, s.batch, d, F), d)});
  }
  const bool several = s.saes.size() > 1;
  const std::string format = s.precision == DType::kBF16 ? "f32, and bf16 copies" : "f32";
  plan.add("SAE parameters and optimizer", states,
           several ? fmt::format("{} SAEs, {}", s.saes.size(), format) : format);
  plan.add("SAE step workspace", workspace, several ? "one for all, of the largest" : "");
  plan.add_host("start, then result", result, several ? "f32, of the largest SAE" : "f32");

  const std::vector<SaeShape> places = places_of(s.saes);
  int64_t slot = 0, widest = 0;
  for (const SaeShape& p : places) {
    slot += p.width * static_cast<int64_t>(size_of(s.precision));
    widest = std::max(widest, p.width);
  }
  const int64_t host_bytes = kOrderBytes + s.row_bytes;  // of each row
  const int64_t row_bytes = slot + (device == Device::kCpu ? host_bytes : 0);
  // Not measured: what orders the rows is there even of a buffer that is only measured.
  int64_t buffer = aligned(4 * s.chunk) + aligned(4 * s.batch) + aligned(8 * widest) + aligned(8) +
                   aligned(4 * s.chunk * static_cast<int64_t>(places.size()));
  const int64_t rows = buffer_rows(s, row_bytes, plan.left() - buffer, plan);
  for (const SaeShape& p : places) buffer += aligned(rows * p.width * static_cast<int64_t>(size_of(s.precision)));
  const int64_t fit = std::max<int64_t>(plan.left() / row_bytes, 0);
  plan.add("activation buffer", buffer,
           fmt::format(
               "{}{} rows of {}, {}{}; {} would fit", s.asked == 0 ? "chosen: " : "", rows,
               places.size() > 1 ? fmt::format("each of {} places", places.size()) : std::to_string(places.at(0).width),
               name(s.precision), rows < s.asked ? ", all that the run has" : "", fit));
  plan.add_host(s.row_bytes > 0 ? "order and tokens of its rows" : "order of its rows", rows * host_bytes);
  return {rows, s.chunk + s.batch, states + workspace + buffer};
}

}  // namespace gsae
