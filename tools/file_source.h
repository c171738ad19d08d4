#pragma once

#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "tools/row_source.h"

namespace gsae {

// Rows of a saved tensor, in file order, from the start again at its end.
class FileSource : public RowSource {
 public:
  // The tensor of `path` named `<site>.<layer>` after `place`, `activations`, or the only matrix in it; f32 or bf16. A
  // tensor that is named after another place is taken at its word, and place() is that one; an Error if `place` was
  // asked for (`insist`).
  FileSource(const std::string& path, Place place, bool insist, int64_t chunk);
  Place place() const { return place_; }
  std::vector<int64_t> widths() const override { return {width()}; }
  int64_t width() const { return rows_.dim[1]; }
  int64_t rows() const { return rows_.dim[0]; }
  int64_t chunk() const override { return chunk_; }
  // An Error names the first row that holds NaN or infinity.
  bool fill(Context& ctx, ActivationBuffer& buffer) override;
  double flops_per_row() const override { return 0; }
  int64_t epoch() const override { return epoch_; }
  SourcePosition position() const override { return {.text = {}, .row = next_, .epoch = epoch_}; }
  void recompute(Context&, ActivationBuffer&, const RowOrigins::State&, std::span<const int32_t>) override;
  void go_on_from(const SourcePosition& from);  // an Error if there is no such row

 private:
  void choose(bool insist);
  void check_finite(int64_t begin, int64_t end) const;
  Tensor on_device(Context& ctx, Tensor rows);

  SafetensorsFile file_;
  Place place_;
  std::string name_;
  Tensor rows_;     // (N, width), mapped
  Buffer staging_;  // a chunk of them on the device, where that is not the CPU
  int64_t chunk_, next_ = 0, epoch_ = 0;
};

}  // namespace gsae
