#pragma once

#include <vector>

#include "kernels/context.h"
#include "kernels/memory.h"
#include "kernels/transfer.h"
#include "sae/row_order.h"

namespace gsae {

// The activations of one site that wait to be trained on, in raw units. Filled where they are computed,
// drawn a batch at a time; RowOrder decides which slot is which.
class ActivationBuffer {
 public:
  // slots rows of `width`, bf16 or f32; chunk: the most rows that arrive at once; batch: that are drawn
  ActivationBuffer(Arena& arena, int64_t slots, int64_t width, DType dtype, int64_t chunk, int64_t batch, uint64_t seed,
                   bool shuffle);

  int64_t slots() const { return order_.slots(); }
  int64_t held() const { return order_.held(); }
  bool has_room() const { return order_.free() >= chunk(); }
  int64_t chunk() const { return arriving_.dim[0]; }

  // First the slots for the rows that are about to arrive (keep: a flag per row, at most chunk() of them) ...
  void expect(Context& ctx, const std::vector<uint8_t>& keep);
  // ... then the rows themselves, (rows, width) f32 or bf16, in as many pieces as they come.
  void write(Context& ctx, Tensor rows, int64_t first_row = 0);

  // x (n, width) f32 = the next n rows, divided by `C`.
  void draw(Context& ctx, Tensor x, double C);

  // x = a sample of the rows held, divided by C; they stay.
  void sample(Context& ctx, Tensor x, double C);

  // sqrt(mean |x|^2) over up to `rows` of the rows held, before any has been drawn: what makes the mean of |x / C|^2
  // one. Uses x (n, width) f32 as scratch.
  double calibrate(Context& ctx, int64_t rows, Tensor x) const;

 private:
  void prepare(Context& ctx);
  void gather(Context& ctx, Tensor x, double C);

  RowOrder order_;
  Tensor table_;         // (slots, width)
  Tensor arriving_;      // (chunk) i32
  Tensor leaving_;       // (batch) i32
  Tensor sum_, square_;  // (width), (1) f64: of the calibration
  std::vector<int32_t> index_;
  Upload arriving_upload_, leaving_upload_;
  bool prepared_ = false;  // the two above
};

}  // namespace gsae
