#include "sae/sae_suite.h"

#include "kernels/checkf.h"

namespace gsae {

SaeSuite::SaeSuite(Arena& arena, Device device, const std::vector<int64_t>& widths, const std::vector<Member>& members,
                   DType precision, StepKind kind)
    : scales_(widths.size()) {
  CHECKF(!members.empty(), "a suite without SAEs");
  std::vector<Arena> shared;
  Arena behind = arena;  // what all share lies behind what each has for itself
  for (const Member& m : members) SaeState(behind, widths.at(m.place), m.latents, precision);
  for (const Member& m : members) {
    CHECKF(m.recipe.batch == members[0].recipe.batch, "a suite of batches of {} and of {}", members[0].recipe.batch,
           m.recipe.batch);
    CHECKF(places_.empty() || m.place >= places_.back(), "a suite's SAEs must be in the order of their places");
    const int64_t d = widths.at(m.place);
    Arena workspace = behind;
    trainers_.push_back(std::make_unique<SaeTrainer>(
        arena, workspace, m.recipe, step_sizes(device, m.recipe.batch, d, m.latents), d, m.latents, precision, kind));
    places_.push_back(m.place);
    shared.push_back(std::move(workspace));
  }
  for (const Arena& workspace : shared) arena.cover(workspace);
}

void SaeSuite::calibrate(Context& ctx, const ActivationBuffer& buffer, int64_t rows) {
  for (int64_t i = 0; i < size(); ++i)
    if (i == 0 || place(i) != place(i - 1)) scales_[place(i)] = buffer.calibrate(ctx, place(i), rows, rows_of(i));
}

void SaeSuite::set_scale(double C) { scales_.assign(scales_.size(), C); }

void SaeSuite::set_scales(const std::vector<double>& scales) {
  CHECKF(scales.size() == scales_.size(), "{} scales for {} places", scales.size(), scales_.size());
  scales_ = scales;
}

// The rows of a place are fetched once: they lie first in the workspace, and stay there for its other SAEs.
void SaeSuite::for_each(Context& ctx, ActivationBuffer& buffer, const std::function<void(SaeTrainer&)>& f) {
  for (int64_t i = 0; i < size(); ++i) {
    if (i == 0 || place(i) != place(i - 1)) buffer.gather(ctx, place(i), rows_of(i), scale(place(i)));
    f(*trainers_[i]);
  }
}

void SaeSuite::start(Context& ctx, ActivationBuffer& buffer) {
  for_each(ctx, buffer, [&](SaeTrainer& t) { t.start(ctx); });
}

void SaeSuite::step(Context& ctx, ActivationBuffer& buffer, int64_t step) {
  for_each(ctx, buffer, [&](SaeTrainer& t) { t.step(ctx, step); });
}

}  // namespace gsae
