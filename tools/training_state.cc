#include "tools/training_state.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "kernels/check.h"

namespace gsae {

using json = nlohmann::json;
using ordered = nlohmann::ordered_json;

namespace {

// The fields of each part, by the names that they have in the record: `field` is called with a name and a reference.
constexpr auto kSourceFields = [](auto& p, const auto& field) {
  field("row", p.row);
  field("file_epoch", p.epoch);
  field("epoch", p.text.statistics.epoch);
  field("items", p.text.items);
  field("packed_of_epoch", p.text.packed_of_epoch);
  field("ended", p.text.ended);
  field("documents", p.text.statistics.documents);
  field("tokens", p.text.statistics.tokens);
  field("skipped", p.text.statistics.skipped);
  field("first_skipped", p.text.statistics.first_skipped);
  field("contexts", p.text.statistics.contexts);
};

constexpr auto kSaeFields = [](auto& s, const auto& field) {
  field("sparse", s.progress.sparse);
  field("rows", s.progress.rows);
  field("sparse_rows", s.progress.sparse_rows);
  field("entries", s.progress.entries);
  field("last_step", s.progress.last_step);
  field("tail_l0", s.tail_l0);
  field("tail_rows", s.tail_rows);
  field("l0", s.l0);
  field("lambda", s.lambda);
};

constexpr auto kPassFields = [](auto& p, const auto& field) {
  field("saes", p.saes);
  field("buffer_rows", p.buffer_rows);
  field("contexts", p.contexts);
};

constexpr auto kInputFields = [](auto& f, const auto& field) {
  field("path", f.path);
  field("bytes", f.bytes);
  field("xxh3", f.hash);
};

constexpr auto kResultFields = [](auto& r, const auto& field) {
  field("sae", r.sae);
  field("l0", r.l0);
  field("lambda", r.lambda);
  field("input_scale", r.input_scale);
};

constexpr auto kOutlierFields = [](auto& s, const auto& field) {
  field("rows", s.rows);
  field("outliers", s.outliers);
  field("dropped", s.dropped);
  field("norms", s.norms);
  field("longest", s.longest);
};

constexpr auto kRunFields = [](auto& s, const auto& field) {
  field("pass", s.pass);
  field("step", s.step);
  field("filled", s.filled);
  field("log_bytes", s.log_bytes);
  field("device", s.device);
};

constexpr auto kTrainingFields = [](auto& s, const auto& field) {
  field("seconds", s.seconds);
  field("model_seconds", s.model_seconds);
  field("sae_seconds", s.sae_seconds);
  field("model_rows", s.model_rows);
  field("sae_flops", s.sae_flops);
  field("arrived", s.arrived);
  field("epoch", s.epoch);
  field("draws", s.order.draws);
  field("scales", s.scales);
  field("has_rows", s.has_rows);
};

auto into(ordered& j) {
  return [&j](const char* name, const auto& value) { j[name] = value; };
}
auto from(const json& j) {
  return [&j](const char* name, auto& value) { j.at(name).get_to(value); };
}

// Lists of parts, each an object.
template <class Part, class Fields> ordered list_of(const std::vector<Part>& parts, const Fields& fields) {
  ordered list = ordered::array();
  for (const Part& part : parts) {
    ordered j;
    fields(part, into(j));
    list.push_back(std::move(j));
  }
  return list;
}
template <class Part, class Fields> void read_list(const json& list, std::vector<Part>& parts, const Fields& fields) {
  for (const json& j : list) fields(parts.emplace_back(), from(j));
}

ordered to_json(const TrainingState::Sae& s) {
  ordered j;
  kSaeFields(s, into(j));
  j["reviewed_l0"] = s.progress.reviewed_l0 ? ordered(*s.progress.reviewed_l0) : ordered();
  return j;
}

TrainingState::Sae sae_state(const json& j) {
  TrainingState::Sae s;
  kSaeFields(s, from(j));
  if (const json& l0 = j.at("reviewed_l0"); !l0.is_null()) s.progress.reviewed_l0 = l0.get<double>();
  return s;
}

TrainingState parse(const json& j) {
  TrainingState s;
  kRunFields(s, from(j));
  read_list(j.at("passes"), s.passes, kPassFields);
  read_list(j.at("inputs"), s.inputs, kInputFields);
  read_list(j.at("results"), s.results, kResultFields);
  if (!s.filled) return s;
  kTrainingFields(s, from(j));
  kSourceFields(s.source, from(j.at("source")));
  read_list(j.at("outliers"), s.outliers, kOutlierFields);
  for (const json& sae : j.at("saes")) s.saes.push_back(sae_state(sae));
  return s;
}

}  // namespace

ordered to_json(const TrainingState& s) {
  ordered j;
  kRunFields(s, into(j));
  j["passes"] = list_of(s.passes, kPassFields);
  j["inputs"] = list_of(s.inputs, kInputFields);
  j["results"] = list_of(s.results, kResultFields);
  if (!s.filled) return j;
  kTrainingFields(s, into(j));
  ordered source;
  kSourceFields(s.source, into(source));
  j["source"] = std::move(source);
  j["outliers"] = list_of(s.outliers, kOutlierFields);
  j["saes"] = ordered::array();
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
