#include "tools/training_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

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

// nlohmann's own conversions take 1e300 for an integer, and true for one.
template <class T> void read(const json& j, T& value) {
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    const bool fits = std::is_signed_v<T> ? j.is_number_integer() && (!j.is_number_unsigned() || j.get<T>() >= 0)
                                          : j.is_number_unsigned();
    if (!fits) throw Error(fmt::format("{:.40} is not a whole number in range", j.dump()));
  }
  j.get_to(value);
}
template <class T> void read(const json& j, std::vector<T>& values) {
  if (!j.is_array()) throw Error(fmt::format("{:.40} is no list", j.dump()));
  for (const json& element : j) read(element, values.emplace_back());
}
auto from(const json& j) {
  return [&j](const char* name, auto& value) { read(j.at(name), value); };
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
  } catch (const std::exception& e) {  // a json::exception, or read()'s
    throw Error(fmt::format("{}: is no record of a training run: {}", what, e.what()));
  }
}

void check_fits(const TrainingState& s, size_t saes, const std::string& what) {
  constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max(), kMostContexts = int64_t{1} << 20;
  constexpr int64_t kMostCounted = int64_t{1} << 60;  // nothing overflows from there
  std::vector<bool> seen(saes);
  for (const TrainingState::PassSizes& pass : s.passes) {
    if (pass.saes.empty() || pass.buffer_rows < 1 || pass.buffer_rows > kMostRows || pass.contexts < 0 ||
        pass.contexts > kMostContexts)
      throw Error(fmt::format("{}: has a pass of {} SAEs, {} rows of the buffer and {} contexts", what,
                              pass.saes.size(), pass.buffer_rows, pass.contexts));
    for (const size_t sae : pass.saes) {
      if (sae >= saes || seen[sae])
        throw Error(fmt::format("{}: its passes do not hold each of the run's {} SAEs once", what, saes));
      seen[sae] = true;
    }
  }
  const auto passes = static_cast<int64_t>(s.passes.size());
  if (std::find(seen.begin(), seen.end(), false) != seen.end() || s.pass < 1 || s.pass > passes + 1 || s.log_bytes < 0)
    throw Error(fmt::format("{}: its record does not fit the run: pass {} of {}, {} bytes of log", what, s.pass, passes,
                            s.log_bytes));
  const auto count = [&](const char* name, int64_t n, int64_t most) {
    if (n < 0 || n > most) throw Error(fmt::format("{}: its {} is {}", what, name, n));
  };
  count("step", s.step, kMostCounted);
  count("log_bytes", s.log_bytes, kMostCounted);
  count("arrived", s.arrived, kMostCounted);
  count("epoch", s.epoch, kMostCounted);
  count("model_rows", s.model_rows, kMostCounted);
  for (const TrainingState::Sae& sae : s.saes) {
    count("rows", sae.progress.rows, kMostCounted);
    count("sparse_rows", sae.progress.sparse_rows, sae.progress.rows);
    count("last_step", sae.progress.last_step, s.step);
    count("tail_rows", sae.tail_rows, kMostCounted);
  }
}

}  // namespace gsae
