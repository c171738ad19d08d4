#include "tools/run_sizes.h"

#include <fmt/format.h>

#include <algorithm>

#include "sae/sae_trainer.h"
#include "tools/lay_out.h"
#include "tools/options.h"

namespace gsae {

// On the CPU what is (tile, F) should stay in the caches; a GPU takes the whole batch, as long as its four (tile, F)
// tensors stay within 2 GiB: each further tile reads and writes the weights' gradients again.
int64_t tile_rows(const Context& ctx, int64_t latents) {
  constexpr int64_t kCpuTile = 512, kGpuBytes = int64_t{2} << 30, kBytesOfLatent = 16;
  if (ctx.device() == Device::kCpu) return kCpuTile;
  const int64_t fits = kGpuBytes / (kBytesOfLatent * latents) / kCpuTile * kCpuTile;
  return std::max(fits, kCpuTile);
}

// Enough rows for the products; on the CPU few enough that activations stay near it.
int64_t contexts_of_pass(const Context& ctx, int64_t asked, int64_t T) {
  if (asked > 0) return asked;
  return std::max<int64_t>(1, (ctx.device() == Device::kCpu ? 1024 : 8192) / T);
}

namespace {

constexpr int64_t kOrderBytes = 8;  // of a row in the buffer: where it is, on the host

// --buffer, or as many as are wanted, or what half of the memory that is left can hold.
int64_t buffer_rows(const SaeSizes& s, int64_t row_bytes, int64_t left) {
  // As long as less than a batch is held, there has to be room for what arrives at once.
  const int64_t least = s.chunk + s.recipe.batch;
  if (s.asked == 0) return std::max(least, std::min(s.wanted, left / 2 / row_bytes));
  if (s.asked < least)
    throw UsageError(
        fmt::format("--buffer {}: must be at least {} activations (a batch and what arrives at once)", s.asked, least));
  return std::min(s.asked, s.most + least);  // there are no more rows than that
}

}  // namespace

SaePlan plan_sae(const Context& ctx, MemoryPlan& plan, const SaeSizes& s) {
  const int64_t d = s.width, F = s.latents, tile = tile_rows(ctx, F);
  const int64_t state = measure<SaeState>(d, F, s.precision);
  const int64_t trainer = measure<SaeTrainer>(s.recipe, tile, d, F, s.precision);
  plan.add("SAE parameters and optimizer", state, s.precision == DType::kBF16 ? "f32, and bf16 copies" : "f32");
  plan.add("SAE gradients and workspace", trainer - state,
           fmt::format("tiles of {} rows", std::min(tile, s.recipe.batch)));
  plan.add_host("start, then result", measure<SaeParameters>(d, F), "f32");

  const int64_t slot = d * static_cast<int64_t>(size_of(s.precision));
  const int64_t row_bytes = slot + (ctx.device() == Device::kCpu ? kOrderBytes : 0);
  const int64_t rows = buffer_rows(s, row_bytes, plan.available() - plan.total());
  // Not measured: what orders the rows is there even of a buffer that is only measured.
  const auto indices = static_cast<int64_t>(sizeof(int32_t)) * (s.chunk + s.recipe.batch);
  const int64_t buffer = rows * slot + indices + static_cast<int64_t>(sizeof(double)) * (d + 1);
  const int64_t fit = (plan.available() - plan.total()) / row_bytes;
  plan.add("activation buffer", buffer,
           fmt::format("{} rows of {} {}; {} would fit", rows, d, name(s.precision), std::max<int64_t>(fit, 0)));
  plan.add_host("order of its rows", rows * kOrderBytes);
  return {rows, trainer + buffer};
}

}  // namespace gsae
