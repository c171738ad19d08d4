#include "kernels/device_fault.h"

#include <fmt/format.h>

namespace gsae {

std::string describe(DeviceFault::Kind kind, int64_t position, int32_t token, int64_t vocabulary) {
  switch (kind) {
    case DeviceFault::kTokenOutside:
      return fmt::format("token {} at position {} is outside the vocabulary of {}: wrong tokenizer?", token, position,
                         vocabulary);
    case DeviceFault::kEmbeddingNotFinite:
      return fmt::format(
          "the embedding of token {} holds NaN or infinity: the checkpoint is damaged, fetch it "
          "again",
          token);
    case DeviceFault::kTargetOutside:
      return fmt::format("lm_loss: target {} of row {} is not a token of the vocabulary of {} (-1: no loss)", token,
                         position, vocabulary);
    default: return fmt::format("a fault of an unknown kind, {}", static_cast<int32_t>(kind));
  }
}

std::string describe(const DeviceFault& fault) {
  for (int32_t kind = 0; kind < DeviceFault::kKinds; ++kind) {
    const unsigned long long first = fault.first[kind];
    if (first != ~0ull)
      return describe(static_cast<DeviceFault::Kind>(kind), static_cast<int64_t>(first >> 32),
                      static_cast<int32_t>(static_cast<uint32_t>(first)), fault.vocabulary[kind]);
  }
  return "";
}

}  // namespace gsae
