#include "tools/evaluate.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "kernels/checkf.h"
#include "kernels/rows.h"
#include "tools/lay_out.h"

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

int64_t widest(std::span<const EvaluationTarget> targets) {
  int64_t width = 1;
  for (const EvaluationTarget& t : targets) width = std::max(width, t.width);
  return width;
}

int64_t most_latents(std::span<const EvaluationTarget> targets) {
  int64_t latents = 1;
  for (const EvaluationTarget& t : targets) latents = std::max(latents, t.latents);
  return latents;
}

// The contexts of an evaluation, which each group of SAEs goes through.
struct Contexts {
  int64_t count = 0, length = 0;
  std::vector<int32_t> tokens;  // (count, length)

  TokenBatch batch(int64_t first, int64_t n) const {
    const auto begin = tokens.begin() + first * length;
    return {n, length, std::vector<int32_t>(begin, begin + n * length)};
  }
};

Contexts read_contexts(TokenStream& stream, int64_t wanted, int64_t at_a_time) {
  Contexts all;
  while (all.count < wanted) {
    const TokenBatch batch = stream.next(std::min(at_a_time, wanted - all.count));
    if (batch.sequences == 0) break;
    all.count += batch.sequences, all.length = batch.context;
    all.tokens.insert(all.tokens.end(), batch.tokens.begin(), batch.tokens.end());
  }
  return all;
}

// Behind the last target of the group that begins at `first`.
size_t end_of_group(std::span<const EvaluationTarget> targets, size_t first, int64_t bytes) {
  int64_t sum = 0;
  size_t end = first;
  for (; end < targets.size(); ++end) {
    sum += measure<SaeParameters>(targets[end].width, targets[end].latents);
    if (sum > bytes && end > first) break;
  }
  return end;
}

class Evaluator {
 public:
  Evaluator(Context& ctx, const Gemma2& model, Gemma2::Activations& a, EvaluationMemory& memory,
            std::span<const EvaluationTarget> targets)
      : ctx_(ctx), model_(model), a_(a), memory_(memory), targets_(targets) {
    for (const EvaluationTarget& t : targets_) {
      CHECKF(model_.site_width(t.site) == t.width,
             "evaluate: an SAE of width {} at site {}, which has width {} in this model", t.width, name(t.site),
             model_.site_width(t.site));
      place_of_.push_back(find_place(t));
      loaded_.push_back(t.load());
      move_to_device(ctx_, loaded_.back());
    }
    losses_.resize(targets_.size());
    by_layer_.resize(places_.size());
    std::iota(by_layer_.begin(), by_layer_.end(), size_t{0});
    std::sort(by_layer_.begin(), by_layer_.end(), [&](size_t x, size_t y) {
      return std::pair(places_[x].layer, places_[x].site) < std::pair(places_[y].layer, places_[y].site);
    });
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
      saes_.emplace_back(loaded_[i].params, places_[place_of_[i]].mean_value);
  }

  // What the SAEs do to the rows, without losses: one pass for all of them.
  void add_metrics(const TokenBatch& batch) {
    load(batch);
    contexts_ += batch.sequences;
    std::vector<Hook> hooks;
    for (size_t i = 0; i < targets_.size(); ++i) hooks.push_back(hook(i, false));
    if (!hooks.empty()) forward(hooks, {});
  }

  // The same, and the losses. What lies below a layer is the same whatever is done to its sites: the passes of its SAEs
  // start from the residual stream there, which the pass to the next of the layers moves on.
  void add_with_losses(const TokenBatch& batch) {
    load(batch);
    contexts_ += batch.sequences, loss_contexts_ += batch.sequences;
    std::vector<Hook> keep;
    if (!places_.empty()) keep.push_back(keep_residual(places_[by_layer_[0]].layer));
    const std::vector<double> clean = run(keep);
    for (size_t k = 0; k < by_layer_.size(); ++k) {
      Place& p = places_[by_layer_[k]];
      if (const int64_t from = places_[by_layer_[k > 0 ? k - 1 : 0]].layer; from < p.layer) {
        const Hook next = keep_residual(p.layer);
        forward_from(from, {&next, 1}, {});
      }
      p.zero = run_from(ablate(p, 0));
      p.ablated_mean = run_from(ablate(p, 1));
      for (size_t i = 0; i < targets_.size(); ++i)
        if (place_of_[i] == by_layer_[k]) add_losses(i, clean, run_from(hook(i, true)));
    }
    for (int64_t c = 0; c < batch.sequences; ++c)
      if (predicted_[c] > 0) clean_.add(clean[c], double(predicted_[c]));
    for (const int64_t count : predicted_) all_predicted_ += count;
  }

  Evaluation result() const {
    Evaluation e{.contexts = contexts_,
                 .context = length_,
                 .loss_contexts = loss_contexts_,
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
    places_.push_back({t.site, t.layer, SiteMean(t.width), {}, {}, {}});
    return places_.size() - 1;
  }

  // Uploads the tokens and where the counted rows are.
  void load(const TokenBatch& batch) {
    const GemmaConfig& c = model_.config();
    const int64_t n = batch.sequences * batch.context;
    index_host_.clear(), context_of_.clear(), position_of_.clear();
    predicted_.assign(static_cast<size_t>(batch.sequences), 0);
    for (int64_t r = 0; r < n; ++r) {
      const int32_t token = batch.tokens[static_cast<size_t>(r)];
      const int64_t sequence = r / batch.context;
      if (r % batch.context != 0 && token != c.pad) ++predicted_[static_cast<size_t>(sequence)];
      if (token == c.bos || token == c.eos || token == c.pad) continue;
      index_host_.push_back(static_cast<int32_t>(r));
      context_of_.push_back(static_cast<int32_t>(sequence));
      position_of_.push_back(static_cast<int32_t>(r % batch.context));
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

  // The same from the residual stream that was kept before this layer.
  void forward_from(int64_t layer, std::span<const Hook> hooks, Tensor nll) {
    const int64_t n = sequences_ * length_;
    copy(ctx_, a_.x.rows(0, n), memory_.residual.rows(0, n));
    model_.forward_from(ctx_, layer, a_, tokens_, hooks, nll);
  }

  Hook keep_residual(int64_t layer) {
    return {.site = Site::kPre, .layer = layer, .edits = false, .call = [this](Context& ctx, Tensor rows) {
              copy(ctx, memory_.residual.rows(0, rows.dim[0]), rows);
            }};
  }

  Tensor nll() const { return memory_.nll.rows(0, sequences_ * length_).reshape({sequences_, length_}); }

  // The summed loss of each context of the batch, with these hooks; and with an edit, from its layer on.
  std::vector<double> run(const std::vector<Hook>& hooks) {
    forward(hooks, nll());
    return sum_losses();
  }
  std::vector<double> run_from(const Hook& edit) {
    forward_from(edit.layer, {&edit, 1}, nll());
    return sum_losses();
  }

  std::vector<double> sum_losses() {
    const Tensor nll = this->nll();
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
  Hook ablate(const Place& p, float scale) {
    return {.site = p.site, .layer = p.layer, .edits = true, .call = [this, &p, scale](Context& ctx, Tensor rows) {
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
            }};
  }

  // Measures an SAE; and, if it edits, splices it in.
  Hook hook(size_t i, bool edits) {
    return {.site = targets_[i].site,
            .layer = targets_[i].layer,
            .edits = edits,
            .call = [this, i, edits](Context& ctx, Tensor rows) {
              saes_[i].add(ctx, rows, {index_, context_of_, sequences_, position_of_}, memory_.workspace, edits);
            }};
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

  std::vector<LoadedSae> loaded_;
  std::vector<Place> places_;
  std::vector<size_t> by_layer_;  // of the places
  std::vector<size_t> place_of_;  // of each target
  std::vector<SaeEvaluation> saes_;
  std::vector<LossSums> losses_;
  RatioSum clean_;
  int64_t contexts_ = 0, loss_contexts_ = 0, all_predicted_ = 0;

  // Of the batch at hand.
  int64_t sequences_ = 0, length_ = 0;
  std::vector<int32_t> tokens_host_, index_host_, context_of_, position_of_;
  std::vector<int64_t> predicted_;
  Tensor tokens_, index_;
};

}  // namespace

EvaluationMemory::EvaluationMemory(Arena& arena, const Gemma2& model, int64_t B, int64_t T,
                                   std::span<const EvaluationTarget> targets)
    : workspace(arena, B * T, widest(targets), most_latents(targets)),
      tokens(arena.take("tokens", DType::kI32, {B * T})),
      nll(arena.take("loss of each token", DType::kF32, {B * T})),
      residual(arena.take("residual stream before a layer", DType::kF32, {B * T, model.config().width})) {}

Evaluation evaluate(Context& ctx, const Gemma2& model, Gemma2::Activations& a, EvaluationMemory& memory,
                    TokenStream& stream, std::span<const EvaluationTarget> targets, const EvaluationOptions& options,
                    Progress& progress) {
  const Contexts all = read_contexts(stream, options.contexts, a.B);
  if (all.count == 0)
    throw Error(
        "the data hold no whole context to evaluate on: give more text, a shorter --context, a larger "
        "--eval-fraction, or --split all if nothing of it was trained on");
  Evaluation e;
  size_t first = 0;
  do {  // once without targets: the model itself
    const size_t end = end_of_group(targets, first, options.bytes);
    const auto group = targets.subspan(first, end - first);
    Evaluator evaluator(ctx, model, a, memory, group);
    const int64_t sampled = group.empty() ? 0 : std::min(kMeanContexts, all.count);
    for (int64_t done = 0; done < sampled; done += a.B)
      evaluator.add_to_means(all.batch(done, std::min(a.B, sampled - done)));
    evaluator.finish_means();
    for (int64_t done = 0, n = 0; done < all.count; done += n) {
      const bool losses = done < options.loss_contexts;  // of a whole batch
      n = std::min(a.B, (losses ? std::min(all.count, options.loss_contexts) : all.count) - done);
      if (losses) evaluator.add_with_losses(all.batch(done, n));
      else evaluator.add_metrics(all.batch(done, n));
      if (progress.due())
        progress.show(fmt::format("evaluating: context {} of {}{}", done + n, all.count,
                                  group.size() == targets.size()
                                      ? ""
                                      : fmt::format(", SAEs {} to {} of {}", first + 1, end, targets.size())));
    }
    Evaluation part = evaluator.result();
    part.saes.insert(part.saes.begin(), std::make_move_iterator(e.saes.begin()), std::make_move_iterator(e.saes.end()));
    e = std::move(part);
    first = end;
  } while (first < targets.size());
  progress.clear();
  return e;
}

}  // namespace gsae
