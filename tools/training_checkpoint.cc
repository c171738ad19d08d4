// How Training saves its state, and goes on from what was saved.
#include <fmt/format.h>

#include <array>
#include <cmath>

#include "kernels/memory.h"
#include "kernels/range.h"
#include "tools/training.h"

namespace gsae {

namespace {

constexpr const char *kHeld = "buffer/held", *kFree = "buffer/free", *kCurrent = "text/current",
                     *kPacked = "text/packed", *kTokens = "buffer/tokens", *kContext = "buffer/context",
                     *kPosition = "buffer/position";

std::string table_name(const Place& place) { return fmt::format("buffer/{}.{}", name(place.site), place.layer); }

Tensor list(std::vector<int32_t>& slots) { return view(slots.data(), {static_cast<int64_t>(slots.size())}); }

}  // namespace

// s: the state that they are saved with; with `origins` it holds what is too long for its record.
NamedTensors Training::tensors(TrainingState& s, RowOrigins::State& origins) {
  NamedTensors all;
  for (int64_t i = 0; i < suite_.size(); ++i)
    for (const auto& [name, t] : suite_.trainer(i).state().persistent())
      all.emplace_back(run_.saes[pass_.saes[i]].member.name() + "/" + name, t);
  if (s.has_rows) {
    for (int64_t p = 0; p < buffer_.places(); ++p) all.emplace_back(table_name(pass_.places[p]), buffer_.tables()[p]);
  } else {
    origins = source_.origins()->state(s.order.held);
    all.emplace_back(kTokens, list(origins.tokens));
    all.emplace_back(kContext, list(origins.context));
    all.emplace_back(kPosition, list(origins.position));
  }
  all.emplace_back(kHeld, list(s.order.held));
  all.emplace_back(kFree, list(s.order.free));
  all.emplace_back(kCurrent, list(s.source.text.current));
  all.emplace_back(kPacked, list(s.source.text.packed));
  return all;
}

TrainingState Training::state() {
  TrainingState s = checkpoints_.run();
  s.pass = pass_.number, s.step = pass_.steps_done;
  s.filled = true;
  s.log_bytes = folder_.log_bytes();
  s.seconds = seconds();
  s.model_seconds = before_.model_seconds + model_time_.seconds();
  s.sae_seconds = before_.sae_seconds + sae_time_.seconds();
  s.model_rows = model_rows_, s.sae_flops = sae_flops_;
  s.arrived = arrived_, s.epoch = epoch_;
  s.source = source_.position();
  s.order = buffer_.order().state();
  s.has_rows = source_.origins() == nullptr;
  s.scales = suite_.scales();
  s.outliers = outliers_.seen();
  for (int64_t i = 0; i < suite_.size(); ++i)
    s.saes.push_back(
        {suite_.trainer(i).progress(), tails_[i].l0, tails_[i].rows, pass_.outcomes[i].l0, pass_.outcomes[i].lambda});
  return s;
}

// A state that is broken is no state to go on from: those before it stay.
void Training::check_losses() {
  check_rows(outliers_.finish());
  for (int64_t i = 0; i < suite_.size(); ++i) {
    const Tensor sums = suite_.trainer(i).state().sums.rows(0, 3);
    std::array<double, 3> host{};
    Tensor values = view(host.data(), {3});
    copy(ctx_, values, sums);
    ctx_.synchronize();
    for (const double value : host)
      if (!std::isfinite(value)) fail_diverged(i, value, pass_.steps_done);
  }
}

void Training::save(bool now) {
  if (!run_.can_go_on) return;
  const Range range("checkpoint");
  report();  // nothing is on its way then
  check_losses();
  const bool synced = folder_.sync_log();
  TrainingState s = state();
  RowOrigins::State origins;
  const auto [saved, error] =
      synced ? checkpoints_.save(ctx_, s, tensors(s, origins), now)
             : checkpoints_.fail(fmt::format("cannot sync {}/train.jsonl to the disk", folder_.path()));
  pass_.saved = saved;
  folder_.keep();
  if (error.empty()) return;
  progress_.note(
      fmt::format("a checkpoint could not be written: {}; training goes on, the checkpoints before it are as "
                  "they were",
                  error));
  folder_.log({{"checkpoint_error", error}, {"step", pass_.steps_done}});
}

void load_tokens(const Checkpoint& checkpoint, SourcePosition& source) {
  source.text.current = checkpoint.integers(kCurrent);
  source.text.packed = checkpoint.integers(kPacked);
}

void Training::resume_rows(const Checkpoint& checkpoint, const TrainingState& s) {
  const std::vector<int32_t> held = checkpoint.integers(kHeld);
  buffer_.order().restore({s.order.draws, held, checkpoint.integers(kFree)});
  if (s.has_rows) {
    for (int64_t p = 0; p < buffer_.places(); ++p)
      checkpoint.load(ctx_, table_name(pass_.places[p]), buffer_.tables()[p]);
    return;
  }
  const RowOrigins::State origins{checkpoint.integers(kTokens), checkpoint.integers(kContext),
                                  checkpoint.integers(kPosition)};
  progress_.note(fmt::format(
      "the checkpoint holds no rows: the buffer's {} are computed again from {} tokens; the run goes on exactly in its "
      "data, not necessarily in its bits",
      format_count(double(held.size())), format_count(double(origins.tokens.size()))));
  source_.recompute(ctx_, buffer_, origins, held);
}

void Training::resume(const Checkpoint& checkpoint, const TrainingState& s) {
  const std::string& path = checkpoint.path();
  if (int64_t(s.saes.size()) != suite_.size() || s.scales.size() != pass_.places.size() || s.step < 1 ||
      s.step > run_.plan.steps || s.arrived < 0)
    throw Error(fmt::format("{}: its record does not fit the run: {} SAEs, {} places, step {} of {}", path,
                            s.saes.size(), s.scales.size(), s.step, run_.plan.steps));
  for (const double scale : s.scales)
    if (!(scale > 0 && std::isfinite(scale))) throw Error(fmt::format("{}: an input scale of {}", path, scale));
  suite_.set_scales(s.scales);
  outliers_.restore(s.outliers);
  for (int64_t i = 0; i < suite_.size(); ++i) {
    SaeTrainer& trainer = suite_.trainer(i);
    const std::string sae = run_.saes[pass_.saes[i]].member.name();
    for (const auto& [name, t] : trainer.state().persistent()) checkpoint.load(ctx_, sae + "/" + name, t);
    trainer.resume(ctx_, s.saes[i].progress);
    tails_[i] = {s.saes[i].tail_l0, s.saes[i].tail_rows};
    pass_.outcomes[i] = {s.saes[i].l0, s.saes[i].lambda};
    run_.saes[pass_.saes[i]].input_scale = suite_.scale(suite_.place(i));
  }
  resume_rows(checkpoint, s);
  pass_.steps_done = s.step;
  model_rows_ = s.model_rows, sae_flops_ = s.sae_flops;
  arrived_ = s.arrived, epoch_ = s.epoch;
  before_ = s;
}

}  // namespace gsae
