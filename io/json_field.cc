#include "io/json_field.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "io/byte_source.h"

namespace gsae {
namespace {

using nlohmann::json;

// Takes one string out of the parser's events; a tree of the line would take many times its size.
class FieldFinder : public nlohmann::json_sax<json> {
 public:
  FieldFinder(std::string& text, const std::string& field) : text_(text), field_(field) {}

  bool key(string_t& k) override {
    here_ = depth_ == 1 && k == field_;
    return true;
  }
  bool string(string_t& s) override {
    if (depth_ == 0) top_ = "a string";
    if (here_) text_ = std::move(s), found_ = true, wrong_ = nullptr;
    here_ = false;
    return true;
  }
  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(number_integer_t) override { return other("a number"); }
  bool number_unsigned(number_unsigned_t) override { return other("a number"); }
  bool number_float(number_float_t, const string_t&) override { return other("a number"); }
  bool binary(binary_t&) override { return other("binary"); }
  bool start_object(size_t) override {
    if (depth_ > 0) other("an object");
    ++depth_;
    return true;
  }
  bool start_array(size_t) override {
    other("an array");
    ++depth_;
    return true;
  }
  bool end_object() override { return --depth_, true; }
  bool end_array() override { return --depth_, true; }
  bool parse_error(size_t position, const std::string&, const json::exception& e) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 9: syntax error while parsing
    // value - invalid literal; last read: '...'": the middle is what a reader of the message wants
    std::string why = e.what();
    if (const size_t at = why.find(" - "); at != why.npos) why.erase(0, at + 3);
    else if (const size_t bracket = why.find("] "); bracket != why.npos) why.erase(0, bracket + 2);
    if (const size_t at = why.find("; last read"); at != why.npos) why.erase(at);
    throw BadData(fmt::format("not valid JSON at byte {}: {}", position, why));
  }

  void check() const {
    if (top_) throw BadData(fmt::format("{} instead of a JSON object", top_));
    if (wrong_) throw BadData(fmt::format("the field '{}' is {} instead of a string", field_, wrong_));
    if (!found_) throw BadData(fmt::format("no field '{}' in the JSON object; --text-field names another", field_));
  }

 private:
  bool other(const char* what) {
    if (depth_ == 0) top_ = what;
    if (here_) wrong_ = what, found_ = false;
    here_ = false;
    return true;
  }

  std::string& text_;
  const std::string& field_;
  size_t depth_ = 0;
  bool here_ = false;  // the next value is the field's
  bool found_ = false;
  const char* top_ = nullptr;    // what the line is, if not an object
  const char* wrong_ = nullptr;  // what the field is, if not a string
};

}  // namespace

void read_json_field(std::string& text, std::string_view line, const std::string& field) {
  FieldFinder finder(text, field);
  json::sax_parse(line.begin(), line.end(), &finder);
  finder.check();
}

}  // namespace gsae
