#include "tools/run_record.h"

#include <nlohmann/json.hpp>

namespace gsae {

namespace {

nlohmann::ordered_json to_json(const Recipe& r) {
  return {{"lr", r.lr},
          {"lr_warmup_steps", r.lr_warmup},
          {"lr_decay_fraction", r.lr_decay},
          {"beta1", 0.0},
          {"beta2", r.beta2},
          {"adam_epsilon", r.epsilon},
          {"decoder_rate", r.decoder_rate},
          {"threshold_rate", r.threshold_rate},
          {"penalty", name(r.penalty)},
          {"lambda", r.lambda},
          {"lambda_warmup_steps", r.lambda_warmup},
          {"target_l0", r.target_l0},
          {"first_l0", r.first_l0},
          {"l0_warmup_steps", r.l0_warmup},
          {"controller", r.controller},
          {"integral_gain", r.integral_gain},
          {"proportional_gain", r.proportional_gain},
          {"threshold_gain", r.threshold_gain},
          {"bandwidth", r.bandwidth},
          {"revive_rate", r.revive_rate},
          {"revive_window", r.revive_window},
          {"start", name(r.start)},
          {"threshold", r.threshold},
          {"start_l0", r.start_l0}};
}

}  // namespace

nlohmann::ordered_json config_json(const Run& run, std::span<const SaeRecord> saes, int64_t buffer_rows) {
  const TrainOptions& o = run.options;
  nlohmann::ordered_json j = {{"format", 1}, {"version", GSAE_VERSION}};
  if (run.model_folder.empty()) {
    j["activations"] = o.activations;
  } else {
    j["model"] = o.data.model;
    j["model_folder"] = run.model_folder;
    j["model_dtype"] = o.data.dtype;
    j["data"] = run.data_files;
    j["text_field"] = o.data.text_field;
    j["token_dtype"] = o.data.token_dtype;
    j["skip_bad"] = o.data.skip_bad;
    j["context"] = o.data.context;
    j["eval_fraction"] = o.data.eval_fraction;
    j["eval_contexts"] = o.eval_contexts;
    j["eval_loss_contexts"] = run.plan.loss_contexts;
  }
  j.update({{"preset", o.preset},
            {"batch", run.plan.batch},
            {"steps", run.plan.steps},
            {"tokens", run.plan.tokens},
            {"passes", o.passes},
            {"precision", o.precision},
            {"sae_step", o.sae_step},
            {"init", o.init},
            {"buffer_rows", buffer_rows},
            {"shuffle", !o.no_shuffle},
            {"max_norm_multiple", run.plan.longest_row},
            {"log_every", run.plan.log_every},
            {"seed", o.common.seed},
            {"saes", nlohmann::ordered_json::array()}});
  for (const SaeRecord& sae : saes)
    j["saes"].push_back({{"name", sae.member.name()},
                         {"site", name(sae.member.site)},
                         {"layer", sae.member.layer},
                         {"width", sae.width},
                         {"latents", sae.member.latents},
                         {"input_scale", sae.input_scale},
                         {"recipe", to_json(sae.recipe)}});
  return j;
}

nlohmann::ordered_json metrics_json(const std::string& sae, int64_t step, int64_t batch, const StepMetrics& m) {
  return {{"sae", sae},
          {"step", step},
          {"tokens", step * batch},
          {"loss", m.loss},
          {"mse", m.mse},
          {"penalty", m.penalty},
          {"l0", m.l0},
          {"target_l0", m.target_l0 > 0 ? nlohmann::ordered_json(m.target_l0) : nlohmann::ordered_json()},
          {"fvu", m.fvu},
          {"dead", m.dead},
          {"threshold_mean", m.threshold_mean},
          {"threshold_min", m.threshold_min},
          {"threshold_max", m.threshold_max},
          {"lr", m.lr},
          {"lambda", m.lambda},
          {"step_kind", m.sparse_rows == m.rows ? "sparse"
                        : m.sparse_rows == 0    ? "dense"
                                                : "both"},
          {"entries", m.sparse_rows > 0 ? nlohmann::ordered_json(m.entries) : nlohmann::ordered_json()}};
}

}  // namespace gsae
