#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/token_stream.h"
#include "model/site.h"
#include "sae/activation_buffer.h"
#include "tools/row_origins.h"

namespace gsae {

// A place of a model where activations are read.
struct Place {
  Site site = Site::kRes;
  int64_t layer = 0;
  bool operator==(const Place&) const = default;
};

// Where a RowSource is in its data.
struct SourcePosition {
  TokenStream::Position text;  // of a model's
  int64_t row = 0, epoch = 0;  // of saved activations: the next row
};

// Where the rows of an activation buffer come from: the same tokens' at one place, or at several.
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual std::vector<int64_t> widths() const = 0;  // of the places
  virtual int64_t chunk() const = 0;                // the most rows that one fill brings
  // Brings up to chunk() rows into the buffer. False: the data has ended.
  virtual bool fill(Context& ctx, ActivationBuffer& buffer) = 0;
  virtual double flops_per_row() const = 0;  // of the forward pass; 0 for saved activations
  virtual int64_t epoch() const = 0;         // passes over the data that are complete
  virtual SourcePosition position() const = 0;
  // The tokens behind the buffer's rows, where they are kept.
  virtual const RowOrigins* origins() const { return nullptr; }
  // Computes the rows of these slots again, and keeps their tokens. An Error if that is not possible.
  virtual void recompute(Context& ctx, ActivationBuffer& buffer, const RowOrigins::State& rows,
                         std::span<const int32_t> slots) = 0;
};

}  // namespace gsae
