#include "tools/run_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/stored_size.h"
#include "tools/evaluate.h"
#include "tools/lay_out.h"

namespace gsae {

int64_t bytes_read(const GemmaWeights& w, int64_t layers) {
  size_t read = w.embedding.bytes();
  for (int64_t i = 0; i < layers; ++i) {
    const LayerWeights& l = w.layers.at(i);
    for (const Tensor& t :
         {l.norm_in, l.q, l.k, l.v, l.o, l.norm_post_att, l.norm_pre_ffw, l.gate, l.up, l.down, l.norm_post_ffw})
      read += t.bytes();
  }
  return static_cast<int64_t>(read);
}

int64_t text_bytes(const TokenStreamOptions& text) {
  // Beside the pool: what is on its way to the tokenizer and from it, and the tokenizer itself.
  constexpr int64_t kOnTheWay = int64_t{8} << 20;
  int64_t pool = 0;
  const auto most = static_cast<int64_t>(text.shuffle_pool_bytes);
  if (text.shuffle)
    for (const std::string& file : text.files) pool = std::min(most, pool + stored_text_bytes(file, most));
  return pool + kOnTheWay;
}

namespace {

struct ModelBytes {
  int64_t training = 0, evaluation = 0;  // evaluation: beside those of the training
};

ModelBytes weight_bytes(const ModelRun& run, const RunChoices& c) {
  if (run.machine.device() == Device::kCuda) {
    if (run.weights) return {static_cast<int64_t>(run.weights->owned_bytes), 0};
    return {static_cast<int64_t>(GemmaWeights(run.config, c.dtype).owned_bytes), 0};
  }
  int64_t layers = 0;
  for (const SaeShape& s : c.saes) layers = std::max(layers, s.place.layer + 1);
  const auto of = [&](const GemmaWeights& w) {
    const int64_t part = bytes_read(w, layers), all = bytes_read(w, run.config.layers);
    return ModelBytes{part, all - part};
  };
  if (!run.weights) return of(GemmaWeights(run.config, DType::kBF16));
  // What could not be mapped was copied, read or not.
  ModelBytes bytes = of(*run.weights);
  const auto copied = static_cast<int64_t>(run.weights->owned_bytes);
  if (copied > 0) bytes = {copied + static_cast<int64_t>(run.weights->mapped_bytes), 0};
  return bytes;
}

// What the evaluation after the training needs beside the model and its activations, for one SAE of each size at a
// time.
int64_t evaluation_bytes(const Gemma2& model, const RunChoices& c, int64_t contexts) {
  Arena shapes;
  std::vector<EvaluationTarget> targets;
  for (const SaeShape& s : c.saes) {
    SaeParameters(shapes, s.width, s.latents);
    targets.push_back({.site = s.place.site, .layer = s.place.layer, .width = s.width, .latents = s.latents});
  }
  return measure<EvaluationMemory>(model, contexts, c.context, targets) + static_cast<int64_t>(shapes.used());
}

RunPlan plan_with(const ModelRun& run, const Gemma2& model, const RunChoices& c, int64_t contexts,
                  const std::string& note) {
  const Device device = run.machine.device();
  RunPlan plan{.memory = run.machine, .suite = {}, .contexts = contexts};
  const ModelBytes weights = weight_bytes(run, c);
  plan.memory.add("model weights", weights.training,
                  device == Device::kCpu ? "mapped, of the layers that are run" : "uploaded");
  plan.memory.add("model activations",
                  measure<Gemma2::Activations>(model, contexts, c.context) + 4 * contexts * c.context,
                  fmt::format("{}{} contexts of {}", note, contexts, c.context));
  plan.suite = plan_suite(device, plan.memory,
                          {.batch = c.batch,
                           .precision = c.precision,
                           .saes = c.saes,
                           .chunk = contexts * c.context,
                           .asked = c.buffer,
                           .wanted = std::min(kLargestBuffer, run.tokens / 8),
                           .most = run.tokens});
  if (run.evaluates) {
    const int64_t more = weights.evaluation + evaluation_bytes(model, c, contexts) - plan.suite.bytes;
    if (more > 0) plan.memory.add("evaluation", more, "beside what training gives back");
  }
  return plan;
}

}  // namespace

RunPlan plan_run(const ModelRun& run, const RunChoices& c) {
  const Device device = run.machine.device();
  const Gemma2 model(device, run.config, c.dtype);
  const int64_t usual = contexts_of_pass(device, c.model_batch, c.context);
  RunPlan plan = plan_with(run, model, c, usual, c.model_batch == 0 ? "chosen: " : "");
  if (c.model_batch > 0) return plan;
  for (int64_t contexts = usual / 2; contexts >= 1 && !plan.memory.fits(); contexts /= 2)
    plan = plan_with(run, model, c, contexts, "chosen to fit: ");
  return plan;
}

}  // namespace gsae
