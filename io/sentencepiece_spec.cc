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

std::optional<Field> take_field(std::string_view& in) {
  const auto key = take_varint(in);
  if (!key) return std::nullopt;
  Field field{.number = *key >> 3, .value = 0, .bytes = {}};
  uint64_t length = 0;
  switch (*key & 7) {
    case 0: {
      const auto value = take_varint(in);
      if (!value) return std::nullopt;
      field.value = *value;
      return field;
    }
    case 1: length = 8; break;
    case 2: {
      const auto value = take_varint(in);
      if (!value) return std::nullopt;
      length = *value;
      break;
    }
    case 5: length = 4; break;
    default: return std::nullopt;
  }
  if (length > in.size()) return std::nullopt;
  field.bytes = in.substr(0, length);
  in.remove_prefix(length);
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
        if (field->number == 2) spec.has_charsmap = !field->bytes.empty();
        if (field->number == 3) spec.add_dummy_prefix = field->value != 0;
        if (field->number == 4) spec.remove_extra_whitespaces = field->value != 0;
      }
  }
  return spec;
}

}  // namespace gsae
