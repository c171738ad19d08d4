#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <memory>

#include "io/hub.h"
#include "io/safetensors.h"
#include "kernels/rows.h"
#include "model/gemma2.h"
#include "tools/data_options.h"
#include "tools/output_option.h"
#include "tools/progress.h"

namespace gsae {

namespace {

struct ActivationsOptions {
  CommonOptions common;
  DataOptions data;
  std::string layer, site = "res", split = "all", rows, out;
  bool keep_special = false, force = false;
};

// What is written: sites of layers, and the logits, which belong to no layer.
struct Wanted {
  struct Tap {
    Site site;
    int64_t layer;
    std::string name;
  };
  std::vector<Tap> taps;
  bool logits = false;
};

Wanted parse_wanted(const ActivationsOptions& o, const GemmaConfig& config) {
  constexpr std::string_view kLogits = "logits";
  Wanted w;
  std::string sites;
  for (size_t begin = 0; begin <= o.site.size();) {
    const size_t end = std::min(o.site.find(',', begin), o.site.size());
    const std::string part = o.site.substr(begin, end - begin);
    if (part == kLogits) w.logits = true;
    else sites += (sites.empty() ? "" : ",") + part;
    begin = end + 1;
  }
  if (sites.empty() && w.logits) return w;
  const auto parsed = parse_sites(sites);
  if (o.layer.empty())
    throw UsageError(fmt::format("--layer is missing: 0 to {}, or a list such as 0-2,4", config.layers - 1));
  for (const int64_t layer : parse_layers(o.layer, config))
    for (const Site site : parsed) w.taps.push_back({site, layer, fmt::format("{}.{}", name(site), layer)});
  return w;
}

// The whole text as contexts, up to `rows` rows (0: all). The file's header needs to know how many
// rows there will be, and standard input cannot be read twice; tokens are less than a hundredth of the
// activations.
struct Rows {
  std::vector<TokenBatch> batches;
  std::vector<std::vector<int32_t>> kept;  // of each batch: the rows to write, ascending
  int64_t count = 0;
};

Rows read_rows(TokenStream& stream, const GemmaConfig& c, int64_t batch, int64_t limit, bool keep_special) {
  Rows rows;
  while (limit == 0 || rows.count < limit) {
    TokenBatch b = stream.next(batch);
    if (b.sequences == 0) break;
    std::vector<int32_t> kept;
    for (size_t r = 0; r < b.tokens.size() && (limit == 0 || rows.count < limit); ++r) {
      const int32_t token = b.tokens[r];
      if (!keep_special && (token == c.bos || token == c.eos || token == c.pad)) continue;
      kept.push_back(static_cast<int32_t>(r));
      ++rows.count;
    }
    rows.batches.push_back(std::move(b));
    rows.kept.push_back(std::move(kept));
  }
  if (rows.count == 0)
    throw Error("the data hold no whole context to run: give more text, a shorter --context, or --split all");
  return rows;
}

std::vector<SafetensorsWriter::Declared> declare(const Wanted& w, const Gemma2& model, int64_t rows) {
  std::vector<SafetensorsWriter::Declared> tensors;
  for (const Wanted::Tap& t : w.taps) tensors.push_back({t.name, "F32", {rows, model.site_width(t.site)}});
  if (w.logits) tensors.push_back({"logits", "F32", {rows, model.config().vocab}});
  for (const char* index : {"tokens", "sequence", "position"}) tensors.push_back({index, "I32", {rows}});
  return tensors;
}

// The rows of one forward pass: as many as keep the products busy, and logits within a quarter GiB.
int64_t batch_size(int64_t context, int64_t vocab, bool logits) {
  int64_t rows = 2048;
  if (logits) rows = std::min(rows, (int64_t{256} << 20) / (vocab * 4));
  return std::max<int64_t>(1, rows / context);
}

// One batch at a time through the model, its kept rows into the file.
class Extraction {
 public:
  Extraction(Context& ctx, const Gemma2& model, const Wanted& wanted, int64_t batch, int64_t context)
      : ctx_(ctx), model_(model), wanted_(wanted) {
    int64_t width = 1;
    for (const Wanted::Tap& t : wanted.taps) width = std::max(width, model.site_width(t.site));
    if (wanted.logits) width = std::max(width, model.config().vocab);
    const auto lay_out = [&](Arena& arena) {
      activations_ = std::make_unique<Gemma2::Activations>(arena, model, batch, context);
      const int64_t n = batch * context;
      tokens_ = arena.take("tokens", DType::kI32, {n});
      index_ = arena.take("kept rows", DType::kI32, {n});
      rows_ = arena.take("rows to write", DType::kF32, {n * width});
      if (wanted.logits) logits_ = arena.take("logits", DType::kF32, {n, model.config().vocab});
    };
    Arena plan;
    lay_out(plan);
    memory_ = Buffer(ctx.device(), plan.used());
    Arena arena(memory_);
    lay_out(arena);
  }

  void run(TokenBatch& batch, std::vector<int32_t>& kept, int64_t first_sequence, SafetensorsWriter& out) {
    const int64_t n = batch.sequences * batch.context;
    const auto count = static_cast<int64_t>(kept.size());
    if (count == 0) return;
    const Tensor tokens = tokens_.rows(0, n).reshape({batch.sequences, batch.context});
    const Tensor index = index_.rows(0, count), logits = logits_ ? logits_.rows(0, n) : Tensor{};
    copy(ctx_, tokens, view(batch.tokens.data(), {batch.sequences, batch.context}));
    copy(ctx_, index, view(kept.data(), {count}));
    std::vector<Hook> hooks;
    for (const Wanted::Tap& t : wanted_.taps)
      hooks.push_back(
          {.site = t.site, .layer = t.layer, .call = [&](Context&, Tensor rows) { write(t.name, rows, index, out); }});
    model_.forward(ctx_, *activations_, tokens, hooks, {}, logits);
    if (logits) write("logits", logits, index, out);

    std::vector<int32_t> token, sequence, position;
    for (const int32_t r : kept) {
      token.push_back(batch.tokens[static_cast<size_t>(r)]);
      sequence.push_back(static_cast<int32_t>(first_sequence + r / batch.context));
      position.push_back(static_cast<int32_t>(r % batch.context));
    }
    out.append("tokens", token.data(), kept.size() * sizeof(int32_t));
    out.append("sequence", sequence.data(), kept.size() * sizeof(int32_t));
    out.append("position", position.data(), kept.size() * sizeof(int32_t));
  }

 private:
  void write(const std::string& name, Tensor rows, Tensor index, SafetensorsWriter& out) {
    const int64_t n = index.dim[0], d = rows.dim[1];
    const Tensor gathered = rows_.rows(0, n * d).reshape({n, d});
    gather_rows(ctx_, gathered, rows, index, 1);
    host_.resize(static_cast<size_t>(n * d));
    copy(ctx_, view(host_.data(), {n, d}), gathered);
    ctx_.synchronize();
    out.append(name, host_.data(), host_.size() * sizeof(float));
  }

  Context& ctx_;
  const Gemma2& model_;
  const Wanted& wanted_;
  Buffer memory_;
  std::unique_ptr<Gemma2::Activations> activations_;
  Tensor tokens_, index_, rows_, logits_;
  std::vector<float> host_;
};

void run_activations(const ActivationsOptions& o) {
  Context ctx = o.common.context();
  const int64_t limit = o.rows.empty() ? 0 : parse_count(o.rows);
  if (!o.rows.empty() && limit < 1) throw UsageError(fmt::format("--rows {}: must be at least 1", o.rows));
  require_new_file("--out", o.out, o.force);
  const std::string dir = find_model(o.data.model);
  const Gemma2 model(ctx, dir, o.data.compute());
  const GemmaConfig& config = model.config();
  const Wanted wanted = parse_wanted(o, config);

  TokenStreamOptions s = o.data.stream(dir, config, o.common);
  s.split = o.split == "train"     ? TokenStreamOptions::Split::kTrain
            : o.split == "heldout" ? TokenStreamOptions::Split::kHeldOut
                                   : TokenStreamOptions::Split::kAll;
  s.shuffle = false;  // in the order of the data
  TokenStream stream(s);
  const int64_t batch = batch_size(s.context, config.vocab, wanted.logits);
  Progress progress(o.common.quiet);
  Rows rows = read_rows(stream, config, batch, limit, o.keep_special);
  if (limit > rows.count)
    progress.note(fmt::format("the data hold {} rows of the {} asked for; all of them are written", rows.count, limit));
  if (const auto done = stream.statistics(); done.skipped > 0)
    progress.note(fmt::format("skipped {} malformed documents, the first {}", done.skipped, done.first_skipped));

  const auto tensors = declare(wanted, model, rows.count);
  int64_t bytes = 0;
  for (const auto& t : tensors) bytes += rows.count * (t.shape.size() == 2 ? t.shape[1] : 1) * 4;
  progress.note(fmt::format("{}: {} rows, {:.1f} MiB", o.out, rows.count, double(bytes) / (1 << 20)));
  SafetensorsWriter out(o.out, tensors, {{"model", o.data.model}, {"dtype", o.data.dtype}, {"version", GSAE_VERSION}});
  Extraction extraction(ctx, model, wanted, batch, s.context);
  int64_t sequence = 0, written = 0;
  for (size_t i = 0; i < rows.batches.size(); ++i) {
    extraction.run(rows.batches[i], rows.kept[i], sequence, out);
    sequence += rows.batches[i].sequences;
    written += static_cast<int64_t>(rows.kept[i].size());
    if (progress.due()) progress.show(fmt::format("activations: row {} of {}", written, rows.count));
  }
  progress.clear();
  out.close();
}

}  // namespace

void add_activations(CLI::App& app) {
  auto o = std::make_shared<ActivationsOptions>();
  CLI::App* command = app.add_subcommand("activations", "writes a model's activations to a safetensors file");
  command
      ->add_option("--out", o->out,
                   "FILE.safetensors: <site>.<layer> (rows, width) f32; tokens, sequence, "
                   "position (rows) i32")
      ->required();
  o->data.dtype = "f32";
  o->data.add(*command);
  command->add_option("--layer", o->layer, "one, or a list such as 0-2,4");
  command->add_option("--site", o->site, "of pre, att, attn_out, mlp_in, mlp, res, and logits; or a list")
      ->capture_default_str();
  command->add_option("--rows", o->rows, "stop after so many; default: all of the data");
  command->add_option("--split", o->split, "train, heldout or all of the documents")
      ->check(CLI::IsMember({"train", "heldout", "all"}))
      ->capture_default_str();
  command->add_flag("--keep-special", o->keep_special, "also the rows of BOS, EOS and padding");
  command->add_flag("--force", o->force, "replace the file if it exists");
  o->common.add(*command);
  command->callback([o] { run_activations(*o); });
}

}  // namespace gsae
