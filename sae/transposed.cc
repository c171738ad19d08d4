#include "sae/transposed.h"

#include <algorithm>
#include <vector>

#include "kernels/checkf.h"
#include "kernels/memory.h"
#include "kernels/parallel.h"

namespace gsae {

namespace {

constexpr int64_t kPart = 4096;  // latents

// f(first, count, part): part (count, d) in the host's memory
template <class F> void for_parts(int64_t latents, int64_t d, F&& f) {
  std::vector<float> part(std::min(latents, kPart) * d);
  for (int64_t first = 0; first < latents; first += kPart) {
    const int64_t count = std::min(kPart, latents - first);
    f(first, count, view(part.data(), {count, d}));
  }
}

void check(const char* what, Tensor rows, Tensor columns) {
  CHECKF(rows.rank == 2 && columns.is({rows.dim[1], rows.dim[0]}) && columns.device == Device::kCpu,
         "{}: {} and {} must be (F, d), and (d, F) on the host", what, rows, columns);
}

}  // namespace

void load_transposed(Context& ctx, Tensor to, Tensor from) {
  check("load_transposed", to, from);
  const int64_t F = to.dim[0], d = to.dim[1];
  const float* columns = from.data<float>();
  for_parts(F, d, [&](int64_t first, int64_t count, Tensor part) {
    float* rows = part.data<float>();
    parallel_for(count, 32, [&](int64_t begin, int64_t end) {
      for (int64_t c = 0; c < d; ++c)
        for (int64_t i = begin; i < end; ++i) rows[i * d + c] = columns[c * F + first + i];
    });
    copy(ctx, to.rows(first, first + count), part);
    ctx.synchronize();  // before the part is written again
  });
}

void save_transposed(Context& ctx, Tensor to, Tensor from) {
  check("save_transposed", from, to);
  const int64_t F = from.dim[0], d = from.dim[1];
  float* columns = to.data<float>();
  for_parts(F, d, [&](int64_t first, int64_t count, Tensor part) {
    copy(ctx, part, from.rows(first, first + count));
    ctx.synchronize();
    const float* rows = part.data<float>();
    parallel_for(count, 32, [&](int64_t begin, int64_t end) {
      for (int64_t c = 0; c < d; ++c)
        for (int64_t i = begin; i < end; ++i) columns[c * F + first + i] = rows[i * d + c];
    });
  });
}

}  // namespace gsae
