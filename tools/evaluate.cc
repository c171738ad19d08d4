#include "tools/evaluate.h"

#include <algorithm>
#include <array>

#include "kernels/checkf.h"
#include "kernels/rows.h"

namespace gsae {

namespace {

// SAEs at the same place share its mean and its ablations.
struct Place {
  Site site;
  int64_t layer;
  SiteMean mean;
  std::vector<float> mean_value;
  std::vector<double> zero, ablated_mean;  // (B) losses of the batch's contexts
};

struct LossSums {
  RatioSum spliced, delta, delta_zero, delta_mean, recovered_zero, recovered_mean;
};

int64_t widest(const Gemma2& model, std::span<const EvaluationTarget> targets) {
  int64_t width = 1;
  for (const EvaluationTarget& t : targets) width = std::max(width, model.site_width(t.site));
  return width;
}

int64_t most_latents(std::span<const EvaluationTarget> targets) {
  int64_t latents = 1;
  for (const EvaluationTarget& t : targets) latents = std::max(latents, t.params.latents());
  return latents;
}

class Evaluator {
 public:
  Evaluator(Context& ctx, const Gemma2& model, Gemma2::Activations& a, EvaluationMemory& memory,
            std::span<const EvaluationTarget> targets, const EvaluationOptions& options)
      : ctx_(ctx), model_(model), a_(a), memory_(memory), targets_(targets), options_(options) {
    for (const EvaluationTarget& t : targets_) {
      CHECKF(model_.site_width(t.site) == t.params.width(),
             "evaluate: an SAE of width {} at site {}, which has width {} in this model", t.params.width(),
             name(t.site), model_.site_width(t.site));
      place_of_.push_back(find_place(t));
    }
    losses_.resize(targets_.size());
  }

  // The first contexts, twice: their mean is needed before anything can be ablated by it.
  void add_to_means(const TokenBatch& batch) {
    load(batch);
    std::vector<Hook> hooks;
    for (Place& p : places_)
      hooks.push_back({.site = p.site, .layer = p.layer, .call = [&](Context& ctx, Tensor rows) {
                         p.mean.add(ctx, rows, index_, memory_.workspace);
                       }});
    if (!index_host_.empty()) forward(hooks, {});
  }
  void finish_means() {
    for (Place& p : places_) p.mean_value = p.mean.mean();
    for (size_t i = 0; i < targets_.size(); ++i)
      saes_.emplace_back(targets_[i].params, places_[place_of_[i]].mean_value);
  }

  void add(const TokenBatch& batch) {
    load(batch);
    contexts_ += batch.sequences;
    if (!options_.losses) return add_metrics_only();
    const std::vector<double> clean = run({});
    for (Place& p : places_) {
      p.zero = run(ablate(p, 0));
      p.ablated_mean = run(ablate(p, 1));
    }
    for (size_t i = 0; i < targets_.size(); ++i) add_losses(i, clean, run(splice(i)));
    for (int64_t c = 0; c < batch.sequences; ++c)
      if (predicted_[c] > 0) clean_.add(clean[c], double(predicted_[c]));
    for (const int64_t count : predicted_) all_predicted_ += count;
  }

  Evaluation result(int64_t context) const {
    Evaluation e{.losses = options_.losses,
                 .contexts = contexts_,
                 .context = context,
                 .predicted = all_predicted_,
                 .lm_loss = clean_.result(),
                 .saes = {}};
    for (size_t i = 0; i < saes_.size(); ++i) {
      const LossSums& s = losses_[i];
      e.saes.push_back({saes_[i].result(),
                        {.spliced = s.spliced.result(),
                         .delta = s.delta.result(),
                         .delta_zero = s.delta_zero.result(),
                         .delta_mean = s.delta_mean.result(),
                         .recovered_zero = s.recovered_zero.result(),
                         .recovered_mean = s.recovered_mean.result()}});
    }
    return e;
  }

 private:
  size_t find_place(const EvaluationTarget& t) {
    for (size_t i = 0; i < places_.size(); ++i)
      if (places_[i].site == t.site && places_[i].layer == t.layer) return i;
    places_.push_back({t.site, t.layer, SiteMean(t.params.width()), {}, {}, {}});
    return places_.size() - 1;
  }

  // Uploads the tokens and where the counted rows are.
  void load(const TokenBatch& batch) {
    const GemmaConfig& c = model_.config();
    const int64_t n = batch.sequences * batch.context;
    index_host_.clear(), context_of_.clear();
    predicted_.assign(static_cast<size_t>(batch.sequences), 0);
    for (int64_t r = 0; r < n; ++r) {
      const int32_t token = batch.tokens[static_cast<size_t>(r)];
      const int64_t sequence = r / batch.context;
      if (r % batch.context != 0 && token != c.pad) ++predicted_[static_cast<size_t>(sequence)];
      if (token == c.bos || token == c.eos || token == c.pad) continue;
      index_host_.push_back(static_cast<int32_t>(r));
      context_of_.push_back(static_cast<int32_t>(sequence));
    }
    sequences_ = batch.sequences, length_ = batch.context;
    tokens_host_ = batch.tokens;
    tokens_ = memory_.tokens.rows(0, n).reshape({sequences_, length_});
    copy(ctx_, tokens_, view(tokens_host_.data(), {sequences_, length_}));
    const auto counted = static_cast<int64_t>(index_host_.size());
    index_ = memory_.workspace.index.rows(0, counted);
    if (counted > 0) copy(ctx_, index_, view(index_host_.data(), {counted}));
    ctx_.synchronize();
  }

  void forward(std::span<const Hook> hooks, Tensor nll) { model_.forward(ctx_, a_, tokens_, hooks, nll); }

  // The summed loss of each context of the batch, with these hooks.
  std::vector<double> run(const std::vector<Hook>& hooks) {
    const Tensor nll = memory_.nll.rows(0, sequences_ * length_).reshape({sequences_, length_});
    forward(hooks, nll);
    std::vector<float> host(static_cast<size_t>(nll.size()));
    copy(ctx_, view(host.data(), {sequences_, length_}), nll);
    ctx_.synchronize();
    std::vector<double> sums(static_cast<size_t>(sequences_));
    for (int64_t b = 0; b < sequences_; ++b)
      for (int64_t t = 0; t + 1 < length_; ++t)
        if (tokens_host_[static_cast<size_t>(b * length_ + t + 1)] != model_.config().pad)
          sums[static_cast<size_t>(b)] += host[static_cast<size_t>(b * length_ + t)];
    return sums;
  }

  // Replaces the counted rows by scale * mean.
  std::vector<Hook> ablate(const Place& p, float scale) {
    return {{.site = p.site, .layer = p.layer, .edits = true, .call = [this, &p, scale](Context& ctx, Tensor rows) {
               const int64_t n = index_.dim[0], d = rows.dim[1];
               if (n == 0) return;
               EvaluationWorkspace& w = memory_.workspace;
               const Tensor x = shaped(w.x, n, d), mean = shaped(w.centre, 1, d), zeros = w.zeros.rows(0, n);
               const std::vector<int32_t> zero(static_cast<size_t>(n));
               copy(ctx, mean, view(const_cast<float*>(p.mean_value.data()), {1, d}));
               copy(ctx, zeros, view(const_cast<int32_t*>(zero.data()), {n}));
               gather_rows(ctx, x, mean, zeros, scale);
               scatter_rows(ctx, rows, x, index_);
               ctx.synchronize();  // the host's memory goes
             }}};
  }

  std::vector<Hook> splice(size_t i) { return {hook(i, true)}; }

  Hook hook(size_t i, bool edits) {
    return {.site = targets_[i].site,
            .layer = targets_[i].layer,
            .edits = edits,
            .call = [this, i, edits](Context& ctx, Tensor rows) {
              saes_[i].add(ctx, rows, {index_, context_of_, sequences_}, memory_.workspace, edits);
            }};
  }

  void add_metrics_only() {
    std::vector<Hook> hooks;
    for (size_t i = 0; i < targets_.size(); ++i) hooks.push_back(hook(i, false));
    if (!hooks.empty()) forward(hooks, {});
  }

  void add_losses(size_t i, const std::vector<double>& clean, const std::vector<double>& spliced) {
    const Place& p = places_[place_of_[i]];
    LossSums& s = losses_[i];
    for (size_t c = 0; c < clean.size(); ++c) {
      const auto n = double(predicted_[c]);
      if (n == 0) continue;
      s.spliced.add(spliced[c], n);
      s.delta.add(spliced[c] - clean[c], n);
      s.delta_zero.add(p.zero[c] - clean[c], n);
      s.delta_mean.add(p.ablated_mean[c] - clean[c], n);
      s.recovered_zero.add(p.zero[c] - spliced[c], p.zero[c] - clean[c]);
      s.recovered_mean.add(p.ablated_mean[c] - spliced[c], p.ablated_mean[c] - clean[c]);
    }
  }

  Context& ctx_;
  const Gemma2& model_;
  Gemma2::Activations& a_;
  EvaluationMemory& memory_;
  std::span<const EvaluationTarget> targets_;
  EvaluationOptions options_;

  std::vector<Place> places_;
  std::vector<size_t> place_of_;  // of each target
  std::vector<SaeEvaluation> saes_;
  std::vector<LossSums> losses_;
  RatioSum clean_;
  int64_t contexts_ = 0, all_predicted_ = 0;

  // Of the batch at hand.
  int64_t sequences_ = 0, length_ = 0;
  std::vector<int32_t> tokens_host_, index_host_, context_of_;
  std::vector<int64_t> predicted_;
  Tensor tokens_, index_;
};

}  // namespace

EvaluationMemory::EvaluationMemory(Arena& arena, const Gemma2& model, int64_t B, int64_t T,
                                   std::span<const EvaluationTarget> targets)
    : workspace(arena, B * T, widest(model, targets), most_latents(targets)),
      tokens(arena.take("tokens", DType::kI32, {B * T})),
      nll(arena.take("loss of each token", DType::kF32, {B * T})) {}

Evaluation evaluate(Context& ctx, const Gemma2& model, Gemma2::Activations& a, EvaluationMemory& memory,
                    TokenStream& stream, std::span<const EvaluationTarget> targets, const EvaluationOptions& options,
                    Progress& progress) {
  Evaluator evaluator(ctx, model, a, memory, targets, options);
  int64_t taken = 0, context = 0;
  const auto next = [&] {
    TokenBatch batch = stream.next(std::min(a.B, options.contexts - taken));
    taken += batch.sequences;
    if (batch.sequences > 0) context = batch.context;
    return batch;
  };
  const auto say = [&](int64_t done) {
    if (progress.due()) progress.show(fmt::format("evaluating: context {} of {}", done, options.contexts));
  };

  std::vector<TokenBatch> first;
  while (!targets.empty() && taken < std::min(kMeanContexts, options.contexts)) {
    first.push_back(next());
    if (first.back().sequences == 0) break;
    evaluator.add_to_means(first.back());
  }
  evaluator.finish_means();
  int64_t done = 0;
  for (const TokenBatch& batch : first) {
    if (batch.sequences == 0) break;
    evaluator.add(batch);
    say(done += batch.sequences);
  }
  while (taken < options.contexts) {
    const TokenBatch batch = next();
    if (batch.sequences == 0) break;
    evaluator.add(batch);
    say(done += batch.sequences);
  }
  progress.clear();
  if (taken == 0)
    throw Error(
        "the data hold no whole context to evaluate on: give more text, a shorter --context, a larger "
        "--eval-fraction, or --split all if nothing of it was trained on");
  return evaluator.result(context);
}

}  // namespace gsae
