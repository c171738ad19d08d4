#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "io/json.h"
#include "kernels/check.h"

namespace gsae {

// The settings beside an SAE's parameters. They come from elsewhere: a field counts only if it has the type expected.
inline nlohmann::json read_object(const std::string& path) {
  constexpr size_t kLargest = size_t{1} << 24;
  nlohmann::json j = read_json(path, kLargest);
  if (!j.is_object()) throw Error(path + ": is not a JSON object");
  return j;
}
inline std::string text_in(const nlohmann::json& j, const char* key) {
  const auto it = j.find(key);
  return it != j.end() && it->is_string() ? it->get<std::string>() : "";
}
inline int64_t integer_in(const nlohmann::json& j, const char* key, int64_t otherwise) {
  const auto it = j.find(key);
  return it != j.end() && it->is_number_integer() ? it->get<int64_t>() : otherwise;
}
inline double number_in(const nlohmann::json& j, const char* key) {
  const auto it = j.find(key);
  return it != j.end() && it->is_number() ? it->get<double>() : 0;
}

}  // namespace gsae
