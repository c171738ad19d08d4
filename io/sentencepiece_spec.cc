#include "io/sentencepiece_spec.h"

#include <cstdint>
#include <optional>

namespace gsae {
namespace {

// One field of a protobuf message: https://protobuf.dev/programming-guides/encoding
struct Field {
  uint64_t number = 0, value = 0;  // value: of a varint
  std::string_view bytes;          // of a length-delimited field
};

std::optional<uint64_t> take_varint(std::string_view& in) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && !in.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(in.front());
    in.remove_prefix(1);
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
  return std::nullopt;
}

// The next one, which leaves `in`; nothing, and all of `in` stays, if there is none that could be followed.
std::optional<Field> take_field(std::string_view& in) {
  std::string_view rest = in;
  const auto key = take_varint(rest);
  if (!key) return std::nullopt;
  Field field{.number = *key >> 3, .value = 0, .bytes = {}};
  uint64_t length = 0;
  const uint64_t type = *key & 7;
  if (type == 0 || type == 2) {  // a varint, which may be a length
    const auto value = take_varint(rest);
    if (!value) return std::nullopt;
    (type == 0 ? field.value : length) = *value;
  } else if (type == 1 || type == 5) {
    length = type == 1 ? 8 : 4;
  } else {
    return std::nullopt;
  }
  if (length > rest.size()) return std::nullopt;
  field.bytes = rest.substr(0, length);
  in = rest.substr(length);
  return field;
}

}  // namespace

SentencePieceSpec read_sentencepiece_spec(std::string_view model) {
  SentencePieceSpec spec;
  while (const auto part = take_field(model)) {
    std::string_view message = part->bytes;
    if (part->number == 2)  // trainer_spec
      while (const auto field = take_field(message)) {
        if (field->number == 3) spec.model_type = static_cast<int>(field->value);
        if (field->number == 35) spec.byte_fallback = field->value != 0;
      }
    if (part->number == 3)  // normalizer_spec
      while (const auto field = take_field(message)) {
        if (field->number == 2 && !field->bytes.empty()) spec.has_charsmap = true;
        if (field->number == 3) spec.add_dummy_prefix = field->value != 0;
        if (field->number == 4) spec.remove_extra_whitespaces = field->value != 0;
      }
    if (part->number == 5)  // denormalizer_spec
      while (const auto field = take_field(message))
        if (field->number == 2 && !field->bytes.empty()) spec.has_charsmap = true;
    const bool settings = part->number == 2 || part->number == 3 || part->number == 5;
    if (settings && !message.empty()) spec.whole = false;
  }
  if (!model.empty()) spec.whole = false;
  return spec;
}

}  // namespace gsae
