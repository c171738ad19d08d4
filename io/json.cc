#include "io/json.h"

#include <fmt/format.h>

#include <set>
#include <vector>

#include "io/output_file.h"
#include "kernels/check.h"

namespace gsae {

nlohmann::json parse_json(const std::string& what, std::string_view text, int max_depth) {
  using Json = nlohmann::json;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const Json::parser_callback_t strict = [&](int depth, Json::parse_event_t event, Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start: keys.emplace_back(); [[fallthrough]];
      case Json::parse_event_t::array_start:
        if (depth >= max_depth) throw Error(fmt::format("{}: JSON nested deeper than {} levels", what, max_depth));
        break;
      case Json::parse_event_t::object_end: keys.pop_back(); break;
      case Json::parse_event_t::key:
        if (!keys.back().insert(parsed.get_ref<const std::string&>()).second)
          throw Error(fmt::format("{}: the JSON holds the key {} twice", what, parsed.dump()));
        break;
      default: break;
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), strict);
  } catch (const Json::exception& e) {
    throw Error(fmt::format("{}: not valid JSON: {:.200}", what, e.what()));  // it quotes the text it met
  }
}

nlohmann::json read_json(const std::string& path, size_t limit) { return parse_json(path, read_file(path, limit)); }

}  // namespace gsae
