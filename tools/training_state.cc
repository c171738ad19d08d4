#include "tools/training_state.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "kernels/check.h"

namespace gsae {

using json = nlohmann::json;
using ordered = nlohmann::ordered_json;

namespace {

ordered to_json(const SourcePosition& p) {
  const TokenStream::Position& t = p.text;
  return {{"row", p.row},
          {"epoch", p.epoch},
          {"text",
           {{"epoch", t.statistics.epoch},
            {"items", t.items},
            {"packed_of_epoch", t.packed_of_epoch},
            {"ended", t.ended},
            {"documents", t.statistics.documents},
            {"tokens", t.statistics.tokens},
            {"skipped", t.statistics.skipped},
            {"first_skipped", t.statistics.first_skipped},
            {"contexts", t.statistics.contexts}}}};
}

SourcePosition source_position(const json& j) {
  SourcePosition p;
  j.at("row").get_to(p.row);
  j.at("epoch").get_to(p.epoch);
  const json& text = j.at("text");
  TokenStream::Position& t = p.text;
  text.at("epoch").get_to(t.statistics.epoch);
  text.at("items").get_to(t.items);
  text.at("packed_of_epoch").get_to(t.packed_of_epoch);
  text.at("ended").get_to(t.ended);
  text.at("documents").get_to(t.statistics.documents);
  text.at("tokens").get_to(t.statistics.tokens);
  text.at("skipped").get_to(t.statistics.skipped);
  text.at("first_skipped").get_to(t.statistics.first_skipped);
  text.at("contexts").get_to(t.statistics.contexts);
  return p;
}

ordered to_json(const TrainingState::Sae& s) {
  const SaeTrainer::Progress& p = s.progress;
  return {{"sparse", p.sparse},   {"reviewed_l0", p.reviewed_l0 ? ordered(*p.reviewed_l0) : ordered()},
          {"rows", p.rows},       {"sparse_rows", p.sparse_rows},
          {"entries", p.entries}, {"last_step", p.last_step},
          {"tail_l0", s.tail_l0}, {"tail_rows", s.tail_rows},
          {"l0", s.l0},           {"lambda", s.lambda}};
}

TrainingState::Sae sae_state(const json& j) {
  TrainingState::Sae s;
  SaeTrainer::Progress& p = s.progress;
  j.at("sparse").get_to(p.sparse);
  if (const json& l0 = j.at("reviewed_l0"); !l0.is_null()) p.reviewed_l0 = l0.get<double>();
  j.at("rows").get_to(p.rows);
  j.at("sparse_rows").get_to(p.sparse_rows);
  j.at("entries").get_to(p.entries);
  j.at("last_step").get_to(p.last_step);
  j.at("tail_l0").get_to(s.tail_l0);
  j.at("tail_rows").get_to(s.tail_rows);
  j.at("l0").get_to(s.l0);
  j.at("lambda").get_to(s.lambda);
  return s;
}

TrainingState parse(const json& j) {
  TrainingState s;
  for (const json& pass : j.at("passes"))
    s.passes.push_back({pass.at("saes").get<std::vector<size_t>>(), pass.at("buffer_rows").get<int64_t>(),
                        pass.at("contexts").get<int64_t>()});
  j.at("device").get_to(s.device);
  for (const json& input : j.at("inputs"))
    s.inputs.push_back(
        {input.at("path").get<std::string>(), input.at("bytes").get<int64_t>(), input.at("xxh3").get<uint64_t>()});
  for (const json& r : j.at("results"))
    s.results.push_back({r.at("sae").get<size_t>(), r.at("l0").get<double>(), r.at("lambda").get<double>(),
                         r.at("input_scale").get<double>()});
  j.at("pass").get_to(s.pass);
  j.at("step").get_to(s.step);
  j.at("filled").get_to(s.filled);
  j.at("log_bytes").get_to(s.log_bytes);
  if (!s.filled) return s;
  j.at("seconds").get_to(s.seconds);
  j.at("model_seconds").get_to(s.model_seconds);
  j.at("sae_seconds").get_to(s.sae_seconds);
  j.at("model_rows").get_to(s.model_rows);
  j.at("sae_flops").get_to(s.sae_flops);
  j.at("arrived").get_to(s.arrived);
  j.at("epoch").get_to(s.epoch);
  s.source = source_position(j.at("source"));
  j.at("draws").get_to(s.draws);
  j.at("scales").get_to(s.scales);
  for (const json& sae : j.at("saes")) s.saes.push_back(sae_state(sae));
  return s;
}

}  // namespace

ordered to_json(const TrainingState& s) {
  ordered j = {
      {"pass", s.pass}, {"step", s.step}, {"filled", s.filled}, {"log_bytes", s.log_bytes}, {"device", s.device}};
  j["passes"] = ordered::array();
  for (const TrainingState::PassSizes& p : s.passes)
    j["passes"].push_back({{"saes", p.saes}, {"buffer_rows", p.buffer_rows}, {"contexts", p.contexts}});
  j["inputs"] = ordered::array();
  for (const FileStamp& f : s.inputs) j["inputs"].push_back({{"path", f.path}, {"bytes", f.bytes}, {"xxh3", f.hash}});
  j["results"] = ordered::array();
  for (const TrainingState::Result& r : s.results)
    j["results"].push_back({{"sae", r.sae}, {"l0", r.l0}, {"lambda", r.lambda}, {"input_scale", r.input_scale}});
  if (!s.filled) return j;
  j.update({{"seconds", s.seconds},
            {"model_seconds", s.model_seconds},
            {"sae_seconds", s.sae_seconds},
            {"model_rows", s.model_rows},
            {"sae_flops", s.sae_flops},
            {"arrived", s.arrived},
            {"epoch", s.epoch},
            {"source", to_json(s.source)},
            {"draws", s.draws},
            {"scales", s.scales},
            {"saes", ordered::array()}});
  for (const TrainingState::Sae& sae : s.saes) j["saes"].push_back(to_json(sae));
  return j;
}

TrainingState training_state(const json& record, const std::string& what) {
  try {
    return parse(record);
  } catch (const json::exception& e) {
    throw Error(fmt::format("{}: is no record of a training run: {}", what, e.what()));
  }
}

}  // namespace gsae
