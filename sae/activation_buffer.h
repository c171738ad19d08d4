#pragma once

#include <vector>

#include "kernels/context.h"
#include "kernels/memory.h"
#include "kernels/transfer.h"
#include "sae/row_order.h"

namespace gsae {

// The activations that wait to be trained on, in raw units, of one place of the model or of several. Those of one token
// lie in the same slot of each place's table, so that one order (RowOrder) serves all, and what an SAE sees does not
// depend on which other places are there. Filled where they are computed, drawn a batch at a time.
class ActivationBuffer {
 public:
  // slots rows of each of the `widths`, bf16 or f32; chunk: the most rows that arrive at once; batch: that are drawn
  ActivationBuffer(Arena& arena, int64_t slots, const std::vector<int64_t>& widths, DType dtype, int64_t chunk,
                   int64_t batch, uint64_t seed, bool shuffle);

  int64_t slots() const { return order_.slots(); }
  int64_t held() const { return order_.held(); }
  bool has_room() const { return order_.free() >= chunk(); }
  int64_t chunk() const { return arriving_.dim[0]; }
  int64_t places() const { return static_cast<int64_t>(tables_.size()); }
  int64_t width(int64_t place) const { return tables_.at(place).dim[1]; }

  // What another process needs to go on: the tables (slots, width), and which of their rows wait.
  const std::vector<Tensor>& tables() const { return tables_; }
  RowOrder& order() { return order_; }

  // First the slots for the rows that are about to arrive (keep: a flag per row, at most chunk() of them) ...
  void expect(Context& ctx, const std::vector<uint8_t>& keep);
  // (the same for rows that come back to slots they had; -1: not kept)
  void expect_at(Context& ctx, const std::vector<int32_t>& slots);
  // ... then the rows themselves, of each place, (rows, width) f32 or bf16, in as many pieces as they come.
  void write(Context& ctx, int64_t place, Tensor rows, int64_t first_row = 0);

  // Of the rows that were expected last: their slots (-1: not kept), and once written their lengths |x|, (places,
  // chunk) f32, zero where a row was not kept.
  const std::vector<int32_t>& arriving() const { return arriving_slots_; }
  const Tensor& norms() const { return norms_; }
  // Gives up some of these, by their places among them: their slots are free again.
  void drop(const std::vector<int32_t>& rows);

  // Chooses the next n rows: they are gone with the next expect(). Or a sample of the rows held: they stay.
  void draw(Context& ctx, int64_t n);
  void sample(Context& ctx, int64_t n);
  // x (n, width) f32 = the rows chosen last, of one place, divided by C.
  void gather(Context& ctx, int64_t place, Tensor x, double C);

  // sqrt(mean |x|^2) over up to `rows` of the rows held, before any has been drawn: what makes the mean of |x / C|^2
  // one. Uses x (n, width) f32 as scratch.
  double calibrate(Context& ctx, int64_t place, int64_t rows, Tensor x) const;

 private:
  void prepare(Context& ctx);
  void send_arriving(Context& ctx);
  void send_chosen(Context& ctx);

  RowOrder order_;
  std::vector<Tensor> tables_;  // (slots, width) of each place
  Tensor arriving_;             // (chunk) i32
  Tensor norms_;                // (places, chunk) f32
  Tensor leaving_;              // (batch) i32
  Tensor sum_, square_;         // (width), (1) f64: of the calibration
  std::vector<int32_t> arriving_slots_, index_;
  Upload arriving_upload_, leaving_upload_;
  bool prepared_ = false;  // the two above
};

}  // namespace gsae
