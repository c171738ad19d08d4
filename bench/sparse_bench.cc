#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "bench/timer.h"
#include "kernels/adam.h"
#include "kernels/entries.h"
#include "kernels/latent_update.h"
#include "kernels/sparse_decode.h"

// What a sparse step does after its encoder, and the latents' update of a dense one: all against the bandwidth of the
// device's memory. rows/s: rows of W_dec, or of dx and centred, that were gathered.

namespace gsae::bench {

namespace {

constexpr float kThreshold = 0.5f;

template <class T> void assign(Context& ctx, Tensor t, const std::vector<T>& values) {
  copy(ctx, t.rows(0, static_cast<int64_t>(values.size())),
       view(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())}));
  ctx.synchronize();  // before the values go
}

// l0 latents of each row, drawn from all of them alike.
class RandomEntries {
 public:
  RandomEntries(Context& ctx, int64_t batch, int64_t latents, int64_t l0) : count_(batch * l0) {
    Arena plan;
    Entries(plan, batch, latents, count_);
    memory_ = Buffer(ctx.device(), plan.used());
    Arena arena(memory_);
    entries_ = Entries(arena, batch, latents, count_);

    std::mt19937 rng(1);
    std::vector<int32_t> latent, row_begin{0}, begin(latents + 1), row(count_), place(count_);
    for (int64_t r = 0; r < batch; ++r) {
      std::vector<int32_t> of_row;
      while (static_cast<int64_t>(of_row.size()) < l0) {
        const auto i = static_cast<int32_t>(rng() % static_cast<uint64_t>(latents));
        if (std::find(of_row.begin(), of_row.end(), i) == of_row.end()) of_row.push_back(i);
      }
      std::sort(of_row.begin(), of_row.end());
      latent.insert(latent.end(), of_row.begin(), of_row.end());
      row_begin.push_back(static_cast<int32_t>(latent.size()));
    }
    for (const int32_t i : latent) ++begin[i + 1];
    for (int64_t i = 0; i < latents; ++i) {
      visited_ += begin[i + 1] > 0;
      begin[i + 1] += begin[i];
    }
    auto next = begin;
    for (int64_t r = 0; r < batch; ++r)
      for (int32_t k = row_begin[r]; k < row_begin[r + 1]; ++k) {
        place[k] = next[latent[k]]++;
        row[place[k]] = static_cast<int32_t>(r);
      }
    assign(ctx, entries_.begin, begin);
    assign(ctx, entries_.row, row);
    assign(ctx, entries_.z, std::vector<float>(count_, 2 * kThreshold));
    assign(ctx, entries_.df, std::vector<float>(count_, 1e-3f));
    assign(ctx, entries_.row_begin, row_begin);
    assign(ctx, entries_.latent, latent);
    assign(ctx, entries_.place, place);
    assign(ctx, entries_.count, std::vector<int64_t>{count_});
  }

  operator const Entries&() const { return entries_; }
  double count() const { return double(count_); }
  double visited() const { return double(visited_); }  // latents with an entry

 private:
  int64_t count_, visited_ = 0;
  Buffer memory_;
  Entries entries_;
};

Tensor filled(Context& ctx, Operands& on, int64_t n, float value) {
  const Tensor t = on.zeros(DType::kF32, {n});
  assign(ctx, t, std::vector<float>(n, value));
  return t;
}

void set_rows(benchmark::State& state, double rows) {
  state.counters["rows/s"] = benchmark::Counter(rows * double(state.iterations()), benchmark::Counter::kIsRate);
}

// Args: rows, width, latents, L0.
void sparse_decode(benchmark::State& state, Context& ctx, DType type) {
  const int64_t n = state.range(0), d = state.range(1), F = state.range(2);
  Operands on(ctx);
  const RandomEntries entries(ctx, n, F, state.range(3));
  const Tensor dx = on.zeros(type, {n, d}), error = on.zeros(DType::kF32, {n}), l0 = on.zeros(DType::kF32, {n}),
               dbias = on.zeros(DType::kF32, {d}), x = on.random(DType::kF32, {n, d}),
               W_dec = on.random(type, {F, d}, 1 / std::sqrt(float(d))), bias = on.zeros(DType::kF32, {d}),
               theta = filled(ctx, on, F, kThreshold);
  measure(state, ctx, [&] { gsae::sparse_decode(ctx, dx, error, l0, dbias, entries, x, W_dec, bias, theta, 1e-3f); });
  set_rows(state, 2 * entries.count());
  set_bytes(state, ctx, entries.count() * double(d) * double(size_of(type)) + double(x.bytes() + dx.bytes()));
}

struct RandomLatents {
  RandomLatents(Context& ctx, Operands& on, int64_t F, int64_t d, bool copies)
      : state{tensors(ctx, on, F, d),
              {on.zeros(DType::kF32, {F, d}), on.zeros(DType::kF32, {F, d}), on.zeros(DType::kF32, {F}),
               on.zeros(DType::kF32, {F})},
              copies ? on.zeros(DType::kBF16, {F, d}) : Tensor{},
              copies ? on.zeros(DType::kBF16, {F, d}) : Tensor{},
              on.zeros(DType::kI64, {F})},
        rates(on.zeros(DType::kF32, {kRates})),
        clock(on.zeros(DType::kI64, {1})) {
    assign(ctx, rates, std::vector<float>{7e-5f, 0.999f, 1, 1});
    assign(ctx, clock, std::vector<int64_t>{1});
  }
  static LatentTensors tensors(Context& ctx, Operands& on, int64_t F, int64_t d) {
    const float scale = 1 / std::sqrt(float(d));
    return {on.random(DType::kF32, {F, d}, scale), on.random(DType::kF32, {F, d}, scale), on.zeros(DType::kF32, {F}),
            filled(ctx, on, F, kThreshold)};
  }
  LatentState state;
  Tensor rates, clock;
};

// Args: latents, width.
void update_latents(benchmark::State& state, Context& ctx, DType type) {
  const int64_t F = state.range(0), d = state.range(1);
  Operands on(ctx);
  const RandomLatents latents(ctx, on, F, d, type == DType::kBF16);
  const LatentTensors g = RandomLatents::tensors(ctx, on, F, d);
  measure(state, ctx, [&] { gsae::update_latents(ctx, latents.state, g, latents.rates, latents.clock, {}); });
  set_bytes(state, ctx, 2 * double(F) * double(d) * (type == DType::kBF16 ? 22 : 20));
}

// Args: rows, width, latents, L0.
void update_listed_latents(benchmark::State& state, Context& ctx, DType type) {
  const int64_t n = state.range(0), d = state.range(1), F = state.range(2);
  Operands on(ctx);
  const RandomEntries entries(ctx, n, F, state.range(3));
  const RandomLatents latents(ctx, on, F, d, type == DType::kBF16);
  const Tensor dx = on.random(type, {n, d}, 1e-3f), centred = on.random(type, {n, d}), dl0 = on.zeros(DType::kF32, {n}),
               db = on.zeros(DType::kF32, {F}), fired = on.zeros(DType::kI32, {F}), pull = on.zeros(DType::kF32, {d});
  measure(state, ctx, [&] {
    gsae::update_listed_latents(ctx, latents.state, entries, dx, centred, dl0, db, fired, pull, latents.rates,
                                latents.clock, 1e-3f, {});
  });
  set_rows(state, 2 * entries.count());
  set_bytes(
      state, ctx,
      2 * double(d) * (entries.visited() * (type == DType::kBF16 ? 18 : 16) + entries.count() * double(size_of(type))));
}

void register_all() {
  const Shapes lists{.cpu = {{4096, 192, 65536, 64}, {512, 2304, 65536, 64}},
                     .cuda = {{4096, 192, 65536, 64}, {4096, 2304, 65536, 64}, {4096, 2304, 1 << 20, 64}}};
  const Shapes latents{.cpu = {{4096, 192}, {65536, 192}, {16384, 2304}},
                       .cuda = {{4096, 192}, {65536, 192}, {16384, 2304}, {65536, 2304}, {16384, 4608}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    const std::string suffix = std::string("/") + gsae::name(t);
    register_op(
        "sparse_decode" + suffix, [=](benchmark::State& s, Context& c) { sparse_decode(s, c, t); }, lists);
    register_op(
        "update_listed_latents" + suffix, [=](benchmark::State& s, Context& c) { update_listed_latents(s, c, t); },
        lists);
    register_op(
        "update_latents" + suffix, [=](benchmark::State& s, Context& c) { update_latents(s, c, t); }, latents);
  }
}

}  // namespace
}  // namespace gsae::bench

int main(int argc, char** argv) {
  gsae::bench::register_all();
  return gsae::bench::run(argc, argv);
}
