#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tools/describe.h"
#include "tools/memory_plan.h"

namespace gsae {
namespace {

using Json = nlohmann::ordered_json;

// Names and metadata come from files that we did not write, and a terminal obeys control characters.
std::string printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return text;
}

// An estimate as eval writes it.
bool is_estimate(const Json& v) {
  return v.is_object() && v.size() == 2 && v.contains("value") && v.contains("standard_error");
}
bool is_table(const Json& v) {
  return v.is_array() && !v.empty() && std::all_of(v.begin(), v.end(), [](const Json& e) { return e.is_object(); });
}

std::string cell(const std::string& key, const Json& v) {
  if (v.is_null()) return "-";
  if (v.is_string()) return printable(v.get<std::string>());
  if (v.is_boolean()) return v.get<bool>() ? "yes" : "no";
  if (key.ends_with("bytes") && v.is_number_integer())
    return v < 1024 ? fmt::format("{} B", v.get<int64_t>()) : format_bytes(v.get<int64_t>());
  if (v.is_number_float()) return fmt::format("{:.5g}", v.get<double>());
  if (is_estimate(v)) return cell("", v["value"]) + " +- " + cell("", v["standard_error"]);
  if (v.is_array()) {
    constexpr size_t kMost = 12;
    std::string text;
    for (size_t i = 0; i < std::min(v.size(), kMost); ++i) text += (i ? ", " : "") + cell("", v[i]);
    if (v.size() > kMost) text += fmt::format(", ... ({} in all)", v.size());
    return key == "shape" ? "(" + text + ")" : text;
  }
  return printable(v.dump(-1, ' ', false, Json::error_handler_t::replace));
}

void append_table(std::string& out, const Json& rows, const std::string& indent) {
  std::vector<std::string> keys;
  for (const Json& row : rows)
    for (const auto& [key, v] : row.items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  std::vector<std::vector<std::string>> lines{keys};
  for (const Json& row : rows) {
    lines.emplace_back();
    for (const std::string& key : keys) lines.back().push_back(row.contains(key) ? cell(key, row[key]) : "-");
  }
  std::vector<size_t> widths(keys.size());
  for (const auto& line : lines)
    for (size_t i = 0; i < keys.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  for (const auto& line : lines) {
    std::string text = indent;
    for (size_t i = 0; i < keys.size(); ++i) {
      const bool number = i > 0 && rows[0].contains(keys[i]) && rows[0][keys[i]].is_number();
      text += number ? fmt::format("{:>{}}  ", line[i], widths[i]) : fmt::format("{:<{}}  ", line[i], widths[i]);
    }
    out += text.erase(text.find_last_not_of(' ') + 1) + "\n";
  }
}

void append(std::string& out, const Json& object, const std::string& indent) {
  size_t width = 0;
  for (const auto& [key, v] : object.items()) width = std::max(width, printable(key).size());
  for (const auto& [key, v] : object.items()) {
    const std::string name = printable(key);
    if (is_table(v)) {
      out += fmt::format("{}{} ({})\n", indent, name, v.size());
      append_table(out, v, indent + "  ");
    } else if (v.is_object() && !v.empty() && !is_estimate(v)) {
      out += fmt::format("{}{}\n", indent, name);
      append(out, v, indent + "  ");
    } else {
      out += fmt::format("{}{:<{}}  {}\n", indent, name, width, cell(key, v));
    }
  }
}

}  // namespace

std::string render(const Json& description) {
  Json rest = description;
  std::string out = fmt::format("{}: {}\n", cell("", rest["path"]), cell("", rest["kind"]));
  rest.erase("path");
  rest.erase("kind");
  append(out, rest, "  ");
  return out;
}

}  // namespace gsae
