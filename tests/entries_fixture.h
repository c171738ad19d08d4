#pragma once

#include <random>
#include <vector>

#include "kernels/entries.h"
#include "tests/harness.h"

// Lists of entries made on the host, one way to make them: for tests of the ops that read them.

namespace gsae::test {

// Pre-activations (B, F) of which about `density` are entries: most above theta, some within half a bandwidth below it.
// Latent 0 never is one. Latent 1 always is, or with `empty_row` row 0 has none.
inline std::vector<float> sparse_z(int64_t rows, const std::vector<float>& theta, float half, double density,
                                   bool empty_row, uint32_t seed) {
  const auto latents = static_cast<int64_t>(theta.size());
  const auto chance = uniform(rows * latents, seed, DType::kF32, 0, 1);
  auto z = uniform(rows * latents, seed + 1, DType::kF32, 0, 1);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < latents; ++i) {
      const int64_t at = r * latents + i;
      const bool wanted = latents == 1 || (i > 0 && (double(chance[at]) < density || (i == 1 && !empty_row)));
      if (!wanted || (empty_row && r == 0)) z[at] = -1 - z[at];
      else if (at % 5 == 0) z[at] = theta[i] + (z[at] - 0.5f) * 1.9f * half;  // within the window
      else z[at] += theta[i];
    }
  return z;
}

class GuardedEntries {
 public:
  // From z (B, F), with room for `spare` more.
  GuardedEntries(Context& ctx, const std::vector<float>& z, const std::vector<float>& theta, float half,
                 int64_t spare = 3)
      : GuardedEntries(ctx, lists(z, theta, half), spare) {}
  operator const Entries&() const { return entries_; }
  const Entries* operator->() const { return &entries_; }

  // Of (B, F): what is in the lists, zeros elsewhere.
  std::vector<float> df(Context& ctx) const { return spread(ctx, download<float>(ctx, entries_.df)); }
  std::vector<float> spread(Context& ctx, const std::vector<float>& values) const {
    const auto begin = download<int32_t>(ctx, entries_.begin), row = download<int32_t>(ctx, entries_.row);
    std::vector<float> all(entries_.batch() * entries_.latents());
    for (int64_t i = 0; i < entries_.latents(); ++i)
      for (int32_t k = begin[i]; k < begin[i + 1]; ++k) all[row[k] * entries_.latents() + i] = values[k];
    return all;
  }

 private:
  struct Lists {
    std::vector<int32_t> begin, row, row_begin, latent, place;
    std::vector<float> z;
  };
  static Lists lists(const std::vector<float>& z, const std::vector<float>& theta, float half) {
    const auto latents = static_cast<int64_t>(theta.size()), rows = static_cast<int64_t>(z.size()) / latents;
    const auto in = [&](int64_t r, int64_t i) { return !(z[r * latents + i] <= theta[i] - half); };
    Lists l;
    std::vector<int32_t> place(z.size());
    for (int64_t i = 0; i < latents; ++i) {
      l.begin.push_back(static_cast<int32_t>(l.row.size()));
      for (int64_t r = 0; r < rows; ++r) {
        if (!in(r, i)) continue;
        place[r * latents + i] = static_cast<int32_t>(l.row.size());
        l.row.push_back(static_cast<int32_t>(r));
        l.z.push_back(z[r * latents + i]);
      }
    }
    l.begin.push_back(static_cast<int32_t>(l.row.size()));
    for (int64_t r = 0; r < rows; ++r) {
      l.row_begin.push_back(static_cast<int32_t>(l.latent.size()));
      for (int64_t i = 0; i < latents; ++i)
        if (in(r, i)) l.latent.push_back(static_cast<int32_t>(i)), l.place.push_back(place[r * latents + i]);
    }
    l.row_begin.push_back(static_cast<int32_t>(l.latent.size()));
    return l;
  }
  GuardedEntries(Context& ctx, Lists l, int64_t spare) {
    const auto count = static_cast<int64_t>(l.row.size()), batch = static_cast<int64_t>(l.row_begin.size()) - 1,
               latents = static_cast<int64_t>(l.begin.size()) - 1, capacity = count + spare;
    Arena plan;
    Entries(plan, batch, latents, capacity);
    memory_ = Buffer(ctx.device(), plan.used());
    Arena arena(memory_);
    entries_ = Entries(arena, batch, latents, capacity);
    // beyond the count whatever an earlier step left
    for (auto* list : {&l.row, &l.latent, &l.place}) list->resize(capacity, 0x7ffffff0);
    l.z.resize(capacity, std::nanf(""));
    upload(ctx, entries_.begin, l.begin);
    upload(ctx, entries_.row, l.row);
    upload(ctx, entries_.z, l.z);
    upload(ctx, entries_.df, std::vector<float>(capacity, std::nanf("")));
    upload(ctx, entries_.row_begin, l.row_begin);
    upload(ctx, entries_.latent, l.latent);
    upload(ctx, entries_.place, l.place);
    upload(ctx, entries_.count, std::vector<int64_t>{count});
  }

  Buffer memory_;
  Entries entries_;
};

inline float rounded(float x, DType t) { return t == DType::kBF16 ? to_float(to_bf16(x)) : x; }

}  // namespace gsae::test
