#include "tools/run_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

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

// The shapes of a model in both types that it computes in: a search for what fits asks for thousands of plans.
struct ModelShapes {
  ModelShapes(Device device, const GemmaConfig& c) : bf16(device, c, DType::kBF16), f32(device, c, DType::kF32) {}
  const Gemma2& of(DType dtype) const { return dtype == DType::kF32 ? f32 : bf16; }
  Gemma2 bf16, f32;
};

struct WeightBytes {
  int64_t training = 0, evaluation = 0;  // evaluation: beside those of the training
};

WeightBytes weight_bytes(const ModelRun& run, const ModelShapes& shapes, const RunChoices& c) {
  if (run.machine.device() == Device::kCuda)
    return {static_cast<int64_t>((run.weights ? *run.weights : shapes.of(c.dtype).weights()).owned_bytes), 0};
  // What could not be mapped was copied, read or not.
  if (run.weights && run.weights->owned_bytes > 0)
    return {static_cast<int64_t>(run.weights->owned_bytes + run.weights->mapped_bytes), 0};
  int64_t layers = 0;
  for (const SaeShape& s : c.saes) layers = std::max(layers, s.place.layer + 1);
  const GemmaWeights& weights = run.weights ? *run.weights : shapes.bf16.weights();
  const int64_t part = bytes_read(weights, layers);
  return {part, bytes_read(weights, run.config.layers) - part};
}

// What the evaluation after the training needs beside the model and its activations. Parameters that do not fit into
// what the training gives back are evaluated in groups.
int64_t evaluation_bytes(const Gemma2& model, const RunChoices& c, int64_t contexts, int64_t given_back) {
  std::vector<EvaluationTarget> targets;  // one of each size and width: the largest count
  int64_t parameters = 0;
  for (const SaeShape& s : c.saes) {
    const bool known = std::any_of(targets.begin(), targets.end(), [&](const EvaluationTarget& t) {
      return t.width == s.width && t.latents == s.latents && t.site == s.place.site;
    });
    if (!known)
      targets.push_back({.site = s.place.site, .layer = s.place.layer, .width = s.width, .latents = s.latents});
    parameters += 2 * s.width * s.latents * static_cast<int64_t>(sizeof(float));
  }
  return measure<EvaluationMemory>(model, contexts, c.context, targets) + std::min(parameters, given_back);
}

RunPlan plan_with(const ModelRun& run, const ModelShapes& shapes, const RunChoices& c, int64_t contexts,
                  const std::string& note) {
  const Device device = run.machine.device();
  const Gemma2& model = shapes.of(c.dtype);
  RunPlan plan{.memory = run.machine, .suite = {}, .contexts = contexts};
  const WeightBytes weights = weight_bytes(run, shapes, c);
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
                           .row_bytes = c.origins ? RowOrigins::bytes_per_row(c.context) : 0,
                           .asked = c.buffer,
                           .wanted = std::min(kLargestBuffer, run.tokens / 8),
                           .most = run.tokens});
  if (run.evaluates) {
    const int64_t more = weights.evaluation + evaluation_bytes(model, c, contexts, plan.suite.bytes) - plan.suite.bytes;
    if (more > 0) plan.memory.add("evaluation", more, "beside what training gives back");
  }
  return plan;
}

}  // namespace

Planner model_planner(const ModelRun& run) {
  const Device device = run.machine.device();
  return [run, device, shapes = std::make_shared<ModelShapes>(device, run.config)](const RunChoices& c) {
    const int64_t usual = contexts_of_pass(device, c.model_batch, c.context);
    RunPlan plan = plan_with(run, *shapes, c, usual, c.model_batch == 0 ? "chosen: " : "");
    for (int64_t contexts = usual / 2; c.model_batch == 0 && contexts >= 1 && !plan.memory.fits(); contexts /= 2)
      plan = plan_with(run, *shapes, c, contexts, "chosen to fit: ");
    return plan;
  };
}

}  // namespace gsae
