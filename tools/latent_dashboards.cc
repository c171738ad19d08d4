#include "tools/latent_dashboards.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "kernels/checkf.h"
#include "kernels/rows.h"
#include "tools/context_pass.h"
#include "tools/lay_out.h"
#include "tools/memory_plan.h"

namespace gsae {

namespace {

// Rows of one forward pass: enough to keep the products busy, few enough to stay in the cache.
constexpr int64_t kRowsOfAPass = 2048;

struct Sizes {
  int64_t B = 1, T = 1;                        // of a pass
  int64_t width = 1, latents = 1, chosen = 1;  // the most of any SAE
};

// What all SAEs share on the device.
struct SharedMemory {
  SharedMemory(Arena& arena, const Gemma2& model, const Sizes& s)
      : pass(arena, model, s.B, s.T),
        workspace(arena, s.B * s.T, s.width, s.latents),
        chosen(arena.take("chosen latents", DType::kF32, {s.B * s.T * s.chosen})),
        attribution(arena, model),
        cosines(arena.take("decoder cosines", DType::kF32, {cosine_rows(s) * (s.latents + s.width)})) {}

  static int64_t cosine_rows(const Sizes& s) {
    return std::clamp<int64_t>((int64_t{32} << 20) / ((s.latents + s.width) * 4), 1, s.chosen);
  }

  ContextPass::Memory pass;
  CollectionWorkspace workspace;
  Tensor chosen;  // f of the chosen latents
  AttributionMemory attribution;
  Tensor cosines;
};

// An example whose values are still to be found: of which chosen latent.
struct Wanted {
  int64_t chosen = 0;
  ContextExample* example = nullptr;
};

// One SAE while it is looked at.
struct Subject {
  const EvaluationTarget* target = nullptr;
  LoadedSae sae;
  Buffer examples_memory;
  Examples examples;
  Buffer selected_memory;
  SaeParameters selected;                         // of the chosen latents
  std::map<int64_t, std::vector<Wanted>> wanted;  // by context
};

class DashboardMaker {
 public:
  DashboardMaker(Context& ctx, const Gemma2& model, SharedMemory& memory, const KeptContexts& contexts,
                 const DashboardOptions& options, Progress& progress)
      : ctx_(ctx),
        model_(model),
        memory_(memory),
        contexts_(contexts),
        options_(options),
        progress_(progress),
        pass_(model, memory.pass, contexts) {}

  // All of these SAEs together, into `out`.
  void make(std::span<const EvaluationTarget> targets, std::span<SaeDashboards> out) {
    std::vector<Subject> subjects(targets.size());
    for (size_t i = 0; i < targets.size(); ++i) load(subjects[i], targets[i]);
    collect(subjects);
    for (size_t i = 0; i < targets.size(); ++i) choose(subjects[i], out[i]);
    shade(subjects);
    for (size_t i = 0; i < targets.size(); ++i) attribute(subjects[i], out[i]);
  }

 private:
  void load(Subject& s, const EvaluationTarget& target) {
    s.target = &target;
    s.sae = target.load();
    move_to_device(ctx_, s.sae);
    s.examples = *allocate<Examples>(ctx_.device(), s.examples_memory, target.latents);
    clear_examples(ctx_, s.examples);
  }

  void collect(std::vector<Subject>& subjects) {
    std::vector<ContextPass::Tap> taps;
    for (Subject& s : subjects)
      taps.push_back({s.target->site, s.target->layer, [&](Context& ctx, Tensor rows, const ContextPass::Batch& b) {
                        collect_examples(ctx, s.examples, rows, b.index, b.row, contexts_.length, s.sae.params,
                                         memory_.workspace, options_.seed);
                      }});
    std::vector<int64_t> all(static_cast<size_t>(contexts_.count));
    std::iota(all.begin(), all.end(), int64_t{0});
    pass_.run(ctx_, all, taps, [&](int64_t done) {
      if (progress_.due()) progress_.show(fmt::format("collecting examples: context {} of {}", done, contexts_.count));
    });
  }

  // The example around a row; its values are wanted.
  ContextExample around(const LatentExample& e, int64_t before, int64_t after) const {
    const int64_t T = contexts_.length, context = e.row / T, position = e.row % T;
    const int64_t begin = std::max<int64_t>(0, position - before), end = std::min(T, position + after + 1);
    const auto tokens =
        contexts_.context(context).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    return {e.value, context, position, begin, {tokens.begin(), tokens.end()}, std::vector<float>(tokens.size())};
  }

  void choose(Subject& s, SaeDashboards& out) {
    const LatentSummaries summaries(ctx_, s.examples);
    s.examples_memory = {};
    out.contexts = contexts_.count, out.context = contexts_.length;
    out.tokens = count_tokens();
    out.fired = summaries.fired();
    const auto chosen = choose_latents(options_.choice, summaries, out.tokens, options_.seed, s.sae.path);
    for (const int64_t latent : chosen) out.latents.push_back(dashboard(latent, summaries.of(latent)));
    for (size_t k = 0; k < out.latents.size(); ++k) {
      const auto want = [&](ContextExample& e) { s.wanted[e.context].push_back({static_cast<int64_t>(k), &e}); };
      for (ContextExample& e : out.latents[k].top) want(e);
      for (ActivationBand& band : out.latents[k].bands)
        for (ContextExample& e : band.examples) want(e);
    }
    if (!chosen.empty()) s.selected = select_latents(ctx_, s.sae.params, chosen, s.selected_memory);
  }

  int64_t count_tokens() const {
    const GemmaConfig& c = model_.config();
    return std::count_if(contexts_.tokens.begin(), contexts_.tokens.end(),
                         [&](int32_t t) { return t != c.bos && t != c.eos && t != c.pad; });
  }

  LatentDashboard dashboard(int64_t latent, LatentSummary summary) const {
    LatentDashboard d{.latent = latent, .summary = std::move(summary)};
    for (const LatentExample& e : d.summary.top) {
      if (static_cast<int64_t>(d.top.size()) == options_.top) break;
      d.top.push_back(around(e, options_.before, options_.after));
    }
    constexpr int64_t kBinsOfABand = Examples::kBins / Examples::kBands;
    const double width = d.summary.scale / Examples::kBands;
    for (int64_t b = Examples::kBands - 1; b >= 0; --b) {
      const auto bins = d.summary.histogram.begin() + b * kBinsOfABand;
      ActivationBand band{.low = width * double(b),
                          .high = width * double(b + 1),
                          .count = std::accumulate(bins, bins + kBinsOfABand, int64_t{0}),
                          .examples = {}};
      for (const LatentExample& e : d.summary.bands[static_cast<size_t>(b)]) {
        if (static_cast<int64_t>(band.examples.size()) == options_.per_band) break;
        band.examples.push_back(around(e, options_.band_before, options_.band_after));
      }
      if (band.count > 0) d.bands.push_back(std::move(band));
    }
    return d;
  }

  // The second look: what the chosen latents do at every token of the contexts that are shown.
  void shade(std::vector<Subject>& subjects) {
    std::vector<int64_t> needed;
    for (const Subject& s : subjects)
      for (const auto& [context, wanted] : s.wanted) needed.push_back(context);
    std::sort(needed.begin(), needed.end());
    needed.erase(std::unique(needed.begin(), needed.end()), needed.end());
    std::vector<ContextPass::Tap> taps;
    for (Subject& s : subjects)
      if (!s.wanted.empty())
        taps.push_back({s.target->site, s.target->layer,
                        [&](Context& ctx, Tensor rows, const ContextPass::Batch& b) { shade(ctx, s, rows, b); }});
    pass_.run(ctx_, needed, taps, [&](int64_t done) {
      if (progress_.due()) progress_.show(fmt::format("shading their contexts: {} of {}", done, needed.size()));
    });
  }

  void shade(Context& ctx, Subject& s, Tensor rows, const ContextPass::Batch& batch) {
    const int64_t n = batch.index.dim[0], d = s.selected.width(), count = s.selected.latents(), T = contexts_.length;
    const Tensor x = memory_.workspace.x.rows(0, n * d).reshape({n, d});
    const Tensor f = memory_.chosen.rows(0, n * count).reshape({n, count});
    gather_rows(ctx, x, rows, batch.index, 1);
    encode(ctx, f, x, s.selected);
    values_.resize(static_cast<size_t>(n * count));
    copy(ctx, view(values_.data(), {n, count}), f);
    ctx.synchronize();
    for (size_t b = 0; b < batch.contexts.size(); ++b) {
      const auto wanted = s.wanted.find(batch.contexts[b]);
      if (wanted == s.wanted.end()) continue;
      for (const auto& [chosen, e] : wanted->second)
        for (size_t t = 0; t < e->tokens.size(); ++t) {
          const int64_t place = batch.place[b * static_cast<size_t>(T) + static_cast<size_t>(e->begin) + t];
          e->values[t] = place < 0 ? 0 : values_[static_cast<size_t>(place * count + chosen)];
        }
    }
  }

  void attribute(Subject& s, SaeDashboards& out) {
    const auto count = static_cast<int64_t>(out.latents.size()), d = s.sae.params.width();
    if (count == 0) return;
    progress_.show(fmt::format("tokens and neighbours of {} latents", count));
    std::vector<int64_t> chosen;
    for (const LatentDashboard& l : out.latents) chosen.push_back(l.latent);
    std::vector<float> rows(static_cast<size_t>(count * d));
    const Tensor decoder = view(rows.data(), {count, d});
    copy(ctx_, decoder, s.selected.W_dec);
    ctx_.synchronize();
    const auto logits =
        attribute_logits(ctx_, model_, s.target->site, s.target->layer, decoder, options_.logits, memory_.attribution);
    const auto neighbours = decoder_neighbours(ctx_, s.sae.params.W_dec, chosen, options_.neighbours, memory_.cosines);
    for (size_t k = 0; k < out.latents.size(); ++k) {
      if (!logits.empty()) out.latents[k].logits = logits[k];
      out.latents[k].neighbours = neighbours[k];
      out.latents[k].coordinates =
          coordinates(std::span(rows).subspan(k * static_cast<size_t>(d), static_cast<size_t>(d)));
    }
  }

  static std::vector<Coordinate> coordinates(std::span<const float> row) {
    constexpr size_t kShown = 3;
    double sum = 0;
    for (const float v : row) sum += std::fabs(v);
    std::vector<Coordinate> all;
    for (size_t c = 0; c < row.size(); ++c)
      all.push_back({static_cast<int64_t>(c), row[c], sum > 0 ? static_cast<float>(std::fabs(row[c]) / sum) : 0});
    const size_t count = std::min(kShown, all.size());
    std::partial_sort(all.begin(), all.begin() + static_cast<int64_t>(count), all.end(),
                      [](const Coordinate& a, const Coordinate& b) { return a.value > b.value; });
    all.resize(count);
    return all;
  }

  Context& ctx_;
  const Gemma2& model_;
  SharedMemory& memory_;
  const KeptContexts& contexts_;
  const DashboardOptions& options_;
  Progress& progress_;
  ContextPass pass_;
  std::vector<float> values_;
};

// On the device, for as long as its group is looked at.
int64_t bytes_of(const EvaluationTarget& t, const LatentChoice& choice) {
  return measure<SaeParameters>(t.width, t.latents) + measure<Examples>(t.latents) +
         measure<SaeParameters>(t.width, choice.at_most(t.latents));
}

}  // namespace

std::vector<SaeDashboards> make_dashboards(Context& ctx, const Gemma2& model, TokenStream& stream,
                                           std::span<const EvaluationTarget> targets, const DashboardOptions& options,
                                           Progress& progress) {
  std::vector<SaeDashboards> all(targets.size());
  if (targets.empty()) return all;
  CHECKF(options.top <= Examples::kTop && options.per_band <= Examples::kPerBand, "make_dashboards: {} and {} examples",
         options.top, options.per_band);
  for (const EvaluationTarget& t : targets) require_latents(options.choice, t.latents, t.name);

  KeptContexts contexts = KeptContexts::read(stream, 1, 1);
  if (contexts.count == 0)
    throw Error("the data hold no whole context: give more text, a shorter --context, or --split all");
  Sizes sizes{.T = contexts.length};
  sizes.B = std::max<int64_t>(1, kRowsOfAPass / sizes.T);
  const KeptContexts rest =
      KeptContexts::read(stream, (options.tokens + sizes.T - 1) / sizes.T - 1, std::max<int64_t>(1, sizes.B));
  contexts.count += rest.count;
  contexts.tokens.insert(contexts.tokens.end(), rest.tokens.begin(), rest.tokens.end());
  sizes.B = std::min(sizes.B, contexts.count);

  int64_t largest = 0;
  for (const EvaluationTarget& t : targets) {
    sizes.width = std::max(sizes.width, t.width);
    sizes.latents = std::max(sizes.latents, t.latents);
    sizes.chosen = std::max(sizes.chosen, options.choice.at_most(t.latents));
    largest = std::max(largest, bytes_of(t, options.choice));
  }
  MemoryPlan plan(ctx);
  plan.add("activations, and work on them", measure<SharedMemory>(model, sizes),
           fmt::format("{} contexts of {} at a time", sizes.B, sizes.T));
  plan.add("the largest SAE, and what is kept of its latents", largest);
  plan.add_host("process", resident_memory(), "with the tokens of all contexts");
  plan.add_host("what is kept, once more", measure<Examples>(sizes.latents), "of an SAE, when the pass has ended");
  plan.check("choose a shorter --context, fewer --tokens or a smaller --count");
  Buffer memory;
  const auto shared = allocate<SharedMemory>(ctx.device(), memory, model, sizes);

  DashboardMaker maker(ctx, model, *shared, contexts, options, progress);
  const int64_t budget = (plan.left() + largest) * 3 / 4;  // what is read while others are there takes room too
  for (size_t begin = 0, end; begin < targets.size(); begin = end) {
    int64_t bytes = 0;
    for (end = begin; end < targets.size(); ++end) {
      bytes += bytes_of(targets[end], options.choice);
      if (bytes > budget && end > begin) break;
    }
    maker.make(targets.subspan(begin, end - begin), std::span(all).subspan(begin, end - begin));
  }
  progress.clear();
  return all;
}

}  // namespace gsae
