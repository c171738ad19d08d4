#include "kernels/examples.h"

#include <atomic>
#include <limits>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/example_lists.h"
#include "kernels/parallel.h"

namespace gsae {

Examples::Examples(Arena& arena, int64_t latents)
    : count(arena.take("examples.count", DType::kI32, {latents})),
      sum(arena.take("examples.sum", DType::kF64, {latents})),
      scale(arena.take("examples.scale", DType::kI32, {latents})),
      histogram(arena.take("examples.histogram", DType::kI32, {latents, kBins})),
      top_value(arena.take("examples.top_value", DType::kF32, {latents, kTop})),
      top_row(arena.take("examples.top_row", DType::kI32, {latents, kTop})),
      band_value(arena.take("examples.band_value", DType::kF32, {latents, kBands, kPerBand})),
      band_row(arena.take("examples.band_row", DType::kI32, {latents, kBands, kPerBand})),
      band_key(arena.take("examples.band_key", DType::kI32, {latents, kBands, kPerBand})),
      faults(arena.take("examples.faults", DType::kI32, {1})) {}

void clear_examples(Context& ctx, const Examples& e) { GSAE_DISPATCH(ctx.device(), clear_examples(ctx, e)); }

void add_examples(Context& ctx, const Examples& e, Tensor f, Tensor row, int64_t T, uint64_t seed) {
  CHECKF(f.rank == 2 && f.dtype == DType::kF32 && f.dim[1] == e.latents(), "add_examples: f {} must be f32 (n, {})", f,
         e.latents());
  CHECKF(row.is({f.dim[0]}) && row.dtype == DType::kI32, "add_examples: row {} must be i32[{}]", row, f.dim[0]);
  CHECKF(T >= 1 && T <= std::numeric_limits<int32_t>::max(), "add_examples: contexts of {} rows", T);
  if (f.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), add_examples(ctx, e, f, row, T, seed));
}

void cpu::clear_examples(Context&, const Examples& e) {
  for (const Tensor& t : {e.count, e.histogram, e.faults}) std::fill_n(t.data<int32_t>(), t.size(), 0);
  for (const Tensor& t : {e.top_row, e.band_row}) std::fill_n(t.data<int32_t>(), t.size(), -1);
  std::fill_n(e.sum.data<double>(), e.latents(), 0.0);
  std::fill_n(e.scale.data<int32_t>(), e.latents(), Examples::kNoScale);
}

void cpu::add_examples(Context&, const Examples& e, Tensor f, Tensor row, int64_t T, uint64_t seed) {
  constexpr int64_t kStripe = 64;  // latents of a thread at a time: some cache lines of each row
  const int64_t n = f.dim[0], latents = f.dim[1];
  const float* values = f.data<float>();
  const int32_t* rows = row.data<int32_t>();
  const ExampleTables tables(e);
  std::atomic<bool> fault = false;
  parallel_for(latents, kStripe, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < n; ++r) {
      const float* v = values + r * latents;
      for (int64_t i = begin; i < end; ++i) {
        if (v[i] == 0) continue;
        if (!is_finite_activation(v[i])) {
          fault = true;
          continue;
        }
        ++tables.count[i];
        tables.sum[i] += v[i];
        tables.of(i).add(v[i], rows[r], static_cast<int32_t>(T),
                         Random(seed, Random::kSampleExamples, static_cast<uint64_t>(i)));
      }
    }
  });
  if (fault) *tables.faults = 1;
}

}  // namespace gsae
