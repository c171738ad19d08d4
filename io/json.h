#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace gsae {

// Parses one JSON text that we did not write. `what` (a path) begins every Error. Stricter than
// nlohmann's own parse: a key that an object holds twice and nesting deeper than `max_depth` are
// Errors too, as are text behind the value and strings that are not UTF-8.
nlohmann::json parse_json(const std::string& what, std::string_view text, int max_depth = 32);

// parse_json of a whole file of at most `limit` bytes.
nlohmann::json read_json(const std::string& path, size_t limit = size_t{64} << 20);

}  // namespace gsae
