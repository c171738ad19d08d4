#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "sae/activation_buffer.h"
#include "sae/sae_trainer.h"

namespace gsae {

// The SAEs that one run trains, side by side: those of one place share its rows and their scale, all share one
// workspace, as they step one after the other. Each takes the steps that it would take alone, to the bit.
class SaeSuite {
 public:
  struct Member {
    Recipe recipe;      // batches of one size
    int64_t place = 0;  // of the activation buffer; members of one place come one behind the other
    int64_t latents = 0;
  };

  // widths: of the places
  SaeSuite(Arena& arena, Device device, const std::vector<int64_t>& widths, const std::vector<Member>& members,
           DType precision, StepKind kind = StepKind::kAuto);

  int64_t size() const { return static_cast<int64_t>(trainers_.size()); }
  int64_t batch() const { return trainers_.front()->recipe().batch; }
  SaeTrainer& trainer(int64_t i) { return *trainers_.at(i); }
  int64_t place(int64_t i) const { return places_.at(i); }

  // sqrt(mean |x|^2) of each place over up to `rows` of the rows held: divides the activations from then on.
  void calibrate(Context& ctx, const ActivationBuffer& buffer, int64_t rows);
  void set_scale(double C);  // the same for every place, instead
  double scale(int64_t place) const { return scales_.at(place); }
  const std::vector<double>& scales() const { return scales_; }
  void set_scales(const std::vector<double>& scales);  // of all places

  // Each from the rows of its place that the buffer has chosen last: a sample.
  void start(Context& ctx, ActivationBuffer& buffer);
  // One step of each, on the rows of its place that the buffer has chosen last.
  void step(Context& ctx, ActivationBuffer& buffer, int64_t step);

 private:
  Tensor rows_of(int64_t i) { return trainers_[i]->workspace().x; }
  void for_each(Context& ctx, ActivationBuffer& buffer, const std::function<void(SaeTrainer&)>& f);

  std::vector<std::unique_ptr<SaeTrainer>> trainers_;
  std::vector<int64_t> places_;
  std::vector<double> scales_;
};

}  // namespace gsae
