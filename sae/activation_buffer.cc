#include "sae/activation_buffer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/checkf.h"
#include "kernels/elementwise.h"
#include "kernels/rows.h"
#include "kernels/statistics.h"

namespace gsae {

ActivationBuffer::ActivationBuffer(Arena& arena, int64_t slots, const std::vector<int64_t>& widths, DType dtype,
                                   int64_t chunk, int64_t batch, uint64_t seed, bool shuffle)
    : order_(slots, seed, shuffle),
      arriving_(arena.take("arriving rows", DType::kI32, {chunk})),
      norms_(arena.take("norms of arriving rows", DType::kF32, {static_cast<int64_t>(widths.size()), chunk})),
      leaving_(arena.take("leaving rows", DType::kI32, {batch})),
      sum_(arena.take("calibration sum", DType::kF64, {*std::max_element(widths.begin(), widths.end())})),
      square_(arena.take("calibration square", DType::kF64, {1})) {
  CHECKF(slots >= chunk && slots >= batch,
         "a buffer of {} rows is smaller than what arrives ({}) or leaves ({}) at once", slots, chunk, batch);
  for (const int64_t width : widths) tables_.push_back(arena.take("activation buffer", dtype, {slots, width}));
}

// Pinned memory needs a device, which the constructor, that is also run to measure, does not know.
void ActivationBuffer::prepare(Context& ctx) {
  if (!prepared_) arriving_upload_ = Upload(ctx, arriving_.bytes()), leaving_upload_ = Upload(ctx, leaving_.bytes());
  prepared_ = true;
}

void ActivationBuffer::expect(Context& ctx, const std::vector<uint8_t>& keep) {
  order_.place(keep, arriving_slots_);
  send_arriving(ctx);
}

void ActivationBuffer::expect_at(Context& ctx, const std::vector<int32_t>& slots) {
  arriving_slots_ = slots;
  send_arriving(ctx);
}

void ActivationBuffer::send_arriving(Context& ctx) {
  prepare(ctx);
  const auto n = static_cast<int64_t>(arriving_slots_.size());
  arriving_upload_.send(ctx, arriving_.rows(0, n), view(arriving_slots_.data(), {n}));
}

void ActivationBuffer::write(Context& ctx, int64_t place, Tensor rows, int64_t first_row) {
  const int64_t end = first_row + rows.dim[0];
  Tensor norms = norms_.rows(place, place + 1).reshape({norms_.dim[1]});
  scatter_rows_with_norms(ctx, tables_.at(place), norms.rows(first_row, end), rows, arriving_.rows(first_row, end));
}

void ActivationBuffer::drop(const std::vector<int32_t>& rows) {
  std::vector<int32_t> slots;
  for (const int32_t row : rows)
    if (int32_t& slot = arriving_slots_.at(row); slot >= 0) slots.push_back(std::exchange(slot, -1));
  order_.take_back(slots);
}

void ActivationBuffer::draw(Context& ctx, int64_t n) {
  order_.draw(n, index_);
  send_chosen(ctx);
}

void ActivationBuffer::sample(Context& ctx, int64_t n) {
  order_.sample(n, index_);
  send_chosen(ctx);
}

void ActivationBuffer::send_chosen(Context& ctx) {
  prepare(ctx);
  const auto n = static_cast<int64_t>(index_.size());
  leaving_upload_.send(ctx, leaving_.rows(0, n), view(index_.data(), {n}));
}

void ActivationBuffer::gather(Context& ctx, int64_t place, Tensor x, double C) {
  gather_rows(ctx, x, tables_.at(place), leaving_.rows(0, x.dim[0]), static_cast<float>(1 / C));
}

double ActivationBuffer::calibrate(Context& ctx, int64_t place, int64_t rows, Tensor x) const {
  const std::span<const int32_t> slots = order_.held_slots();
  const int64_t total = std::min(rows, held()), batch = std::min(x.dim[0], leaving_.dim[0]);
  CHECKF(total > 0, "calibration needs activations: the buffer is empty");
  std::vector<int32_t> index(batch);
  const Tensor sum = sum_.rows(0, width(place));
  fill_zero(ctx, sum);
  fill_zero(ctx, square_);
  for (int64_t begin = 0; begin < total; begin += batch) {
    const int64_t n = std::min(batch, total - begin);
    std::copy_n(slots.begin() + begin, n, index.begin());
    copy(ctx, leaving_.rows(0, n), view(index.data(), {n}));
    gather_rows(ctx, x.rows(0, n), tables_.at(place), leaving_.rows(0, n), 1);
    add_moments(ctx, sum, square_, x.rows(0, n));
    ctx.synchronize();  // before the index is written again
  }
  double square = 0;
  Tensor host = view(&square, {1});
  copy(ctx, host, square_);
  ctx.synchronize();
  const double C = std::sqrt(square / static_cast<double>(total));
  CHECKF(std::isfinite(C) && C > 0,
         "the activations of the first {} rows have a root mean square norm of {}: they hold NaN or infinity, or "
         "nothing at all; check the model's weights (gemma_sae info MODEL)",
         total, C);
  return C;
}

}  // namespace gsae
