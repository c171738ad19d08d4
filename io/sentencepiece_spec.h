#pragma once

#include <string_view>

namespace gsae {

// The settings in a SentencePiece model file that its library does not tell: those that decide
// whether a text can be encoded in parts, and whether the file can be trusted. Defaults as in
// sentencepiece_model.proto.
struct SentencePieceSpec {
  bool whole = true;   // the file and the settings in it could be read to their ends
  int model_type = 1;  // unigram; 2 is BPE
  bool byte_fallback = false;
  bool has_charsmap = false;  // the text is normalised by a table, on its way in or out
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

// Reads them from the serialized ModelProto, up to where it is no well-formed message (not whole).
SentencePieceSpec read_sentencepiece_spec(std::string_view model);

}  // namespace gsae
