#include "kernels/entries.h"

#include <bit>
#include <limits>

#include "kernels/checkf.h"
#include "kernels/cpu.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

Entries::Entries(Arena& arena, int64_t batch, int64_t latents, int64_t capacity) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  CHECKF(batch >= 1 && batch <= kMostRows, "Entries: a batch of {}: must be from 1 to {}", batch, kMostRows);
  CHECKF(latents >= 1 && latents < kMost, "Entries: {} latents: must be from 1 to {}", latents, kMost - 1);
  CHECKF(capacity >= 1 && capacity <= kMost, "Entries: a capacity of {}: must be from 1 to {}", capacity, kMost);
  begin = arena.take("entries.begin", DType::kI32, {latents + 1});
  row = arena.take("entries.row", DType::kI32, {capacity});
  owner = arena.take("entries.owner", DType::kI32, {capacity});
  z = arena.take("entries.z", DType::kF32, {capacity});
  df = arena.take("entries.df", DType::kF32, {capacity});
  row_begin = arena.take("entries.row_begin", DType::kI32, {batch + 1});
  latent = arena.take("entries.latent", DType::kI32, {capacity});
  place = arena.take("entries.place", DType::kI32, {capacity});
  count = arena.take("entries.count", DType::kI64, {1});
}

void clear_entries(Context& ctx, const Entries& e) { GSAE_DISPATCH(ctx.device(), clear_entries(ctx, e)); }

void select_entries(Context& ctx, const Entries& e, Tensor zt, Tensor b_enc, Tensor theta, float half, int64_t first) {
  CHECKF(zt.rank == 2 && zt.dtype == DType::kF32 && zt.dim[1] == e.batch(),
         "select_entries: zt {} must be f32 (Ft, {})", zt, e.batch());
  const int64_t latents = zt.dim[0];
  CHECKF(b_enc.is({latents}) && b_enc.dtype == DType::kF32 && theta.is({latents}) && theta.dtype == DType::kF32,
         "select_entries: b_enc {} and theta {} must be f32[{}]", b_enc, theta, latents);
  CHECKF(first >= 0 && first + latents <= e.latents(), "select_entries: latents [{}, {}) of {}", first, first + latents,
         e.latents());
  if (latents == 0) return;
  GSAE_DISPATCH(ctx.device(), select_entries(ctx, e, zt, b_enc, theta, half, first));
}

void transpose_entries(Context& ctx, const Entries& e) { GSAE_DISPATCH(ctx.device(), transpose_entries(ctx, e)); }

void count_entries(Context& ctx, Tensor fired, const Entries& e) {
  CHECKF(fired.is({e.latents()}) && fired.dtype == DType::kI32, "count_entries: fired {} must be i32[{}]", fired,
         e.latents());
  GSAE_DISPATCH(ctx.device(), count_entries(ctx, fired, e));
}

namespace {

constexpr int64_t kWord = 64;  // rows of a word of marks

// Bit k: whether row k is an entry's. As vector code: half a word at a time, in lanes of the width of z.
uint32_t marks_of_half(const float* z, float bias, float least) {
  uint32_t marks = 0;
#pragma omp simd reduction(| : marks)
  for (int k = 0; k < 32; ++k) marks |= uint32_t{!(z[k] + bias <= least)} << k;
  return marks;
}
uint64_t marks_of(const float* z, float bias, float least, int64_t rows) {
  if (rows >= kWord) return marks_of_half(z, bias, least) | uint64_t{marks_of_half(z + 32, bias, least)} << 32;
  uint64_t marks = 0;
  for (int64_t k = 0; k < rows; ++k) marks |= uint64_t{!(z[k] + bias <= least)} << k;
  return marks;
}

// marks: of every row of these latents, a bit for each, so that only few of zt are read a second time.
void select_marked(const Entries& e, uint64_t* marks, Tensor zt, const float* b_enc, const float* theta, float half,
                   int64_t first) {
  const int64_t latents = zt.dim[0], n = zt.dim[1], words = (n + kWord - 1) / kWord, capacity = e.capacity();
  const int64_t grain = std::max<int64_t>(1, (1 << 15) / n);  // not less than a thread is worth
  const float* zs = zt.data<float>();
  int32_t *begin = e.begin.data<int32_t>() + first, *rows = e.row.data<int32_t>(), *owners = e.owner.data<int32_t>();
  float* values = e.z.data<float>();
  parallel_for(latents, grain, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const float *z = zs + i * n, bias = b_enc[i], least = theta[i] - half;
      uint64_t* of_latent = marks + i * words;
      int32_t count = 0;
      for (int64_t w = 0; w < words; ++w) {
        const uint64_t word = marks_of(z + w * kWord, bias, least, n - w * kWord);
        count += std::popcount(word);
        of_latent[w] = word;
      }
      begin[i + 1] = count;  // for now
    }
  });
  int64_t total = 0, end = begin[0];
  for (int64_t i = 0; i < latents; ++i) {
    total += begin[i + 1];
    end = std::min(end + begin[i + 1], capacity);
    begin[i + 1] = static_cast<int32_t>(end);
  }
  *e.count.data<int64_t>() += total;
  parallel_for(latents, grain, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const float *z = zs + i * n, bias = b_enc[i];
      const uint64_t* of_latent = marks + i * words;
      int64_t at = begin[i];
      const int64_t stop = begin[i + 1];
      for (int64_t w = 0; at < stop; ++w)
        for (uint64_t word = of_latent[w]; word != 0 && at < stop; word &= word - 1, ++at) {
          const int64_t r = w * kWord + std::countr_zero(word);
          rows[at] = static_cast<int32_t>(r);
          owners[at] = static_cast<int32_t>(first + i);
          values[at] = z[r] + bias;
        }
    }
  });
}

}  // namespace

void cpu::clear_entries(Context&, const Entries& e) {
  *e.count.data<int64_t>() = 0;
  *e.begin.data<int32_t>() = 0;
}

void cpu::select_entries(Context& ctx, const Entries& e, Tensor zt, Tensor b_enc, Tensor theta, float half,
                         int64_t first) {
  const Buffer& scratch = ctx.cpu().workspace;
  const int64_t words = (zt.dim[1] + kWord - 1) / kWord;
  const int64_t fit = static_cast<int64_t>(scratch.size() / sizeof(uint64_t)) / words;  // 16 latents at least
  for (int64_t i = 0; i < zt.dim[0]; i += fit)
    select_marked(e, reinterpret_cast<uint64_t*>(scratch.data()), zt.rows(i, std::min(zt.dim[0], i + fit)),
                  b_enc.data<float>() + i, theta.data<float>() + i, half, first + i);
}

// A counting sort: each chunk of the entries counts its rows, and then has places of its own in every row.
void cpu::transpose_entries(Context& ctx, const Entries& e) {
  const int64_t count = std::min(*e.count.data<int64_t>(), e.capacity()), n = e.batch();
  const Buffer& scratch = ctx.cpu().workspace;
  int32_t* row_begin = e.row_begin.data<int32_t>();
  // As many as there are threads, but not so many that the tables cost more than the entries, or do not fit. The last
  // table is row_begin.
  const int64_t fit = static_cast<int64_t>(scratch.size() / sizeof(int32_t)) / n;
  const int64_t chunks = std::min({int64_t{omp_get_max_threads()}, 1 + count / (4 * n), 1 + fit});
  const auto table = [&](int64_t c) {
    return c == chunks - 1 ? row_begin : reinterpret_cast<int32_t*>(scratch.data()) + c * n;
  };
  const int32_t *rows = e.row.data<int32_t>(), *owners = e.owner.data<int32_t>();
  int32_t *latents = e.latent.data<int32_t>(), *places = e.place.data<int32_t>();
  const auto for_chunks = [&](auto&& f) {
    parallel_for(chunks, 1, [&](int64_t c, int64_t) { f(table(c), count * c / chunks, count * (c + 1) / chunks); });
  };
  for_chunks([&](int32_t* at, int64_t from, int64_t to) {
    std::fill_n(at, n, 0);
    for (int64_t p = from; p < to; ++p) ++at[rows[p]];
  });
  int32_t sum = 0;
  for (int64_t r = 0; r < n; ++r)
    for (int64_t c = 0; c < chunks; ++c) sum += std::exchange(table(c)[r], sum);
  for_chunks([&](int32_t* at, int64_t from, int64_t to) {
    for (int64_t p = from; p < to; ++p) {
      const int32_t k = at[rows[p]]++;
      latents[k] = owners[p];
      places[k] = static_cast<int32_t>(p);
    }
  });
  // now each row's place in the last table is where the next row begins
  std::copy_backward(row_begin, row_begin + n, row_begin + n + 1);
  row_begin[0] = 0;
}

void cpu::count_entries(Context&, Tensor fired, const Entries& e) {
  const int32_t* begin = e.begin.data<int32_t>();
  for (int64_t i = 0; i < e.latents(); ++i) fired.data<int32_t>()[i] += begin[i + 1] - begin[i];
}

}  // namespace gsae
