#pragma once

#include <string>
#include <string_view>

namespace gsae {

// Puts the string `field` of the JSON object `line` into `text`. Keeps nothing of the rest, however
// deep or long it is. BadData says what is wrong: not JSON (RFC 8259, so not UTF-8 either), not an
// object, no such field, or a field that is not a string.
void read_json_field(std::string& text, std::string_view line, const std::string& field);

}  // namespace gsae
