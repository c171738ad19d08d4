#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/safetensors.h"
#include "io/token_stream.h"
#include "kernels/graph.h"
#include "kernels/transfer.h"
#include "model/gemma2.h"
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

// Gemma runs over the token stream, once for all places and up to the last one, and its rows go straight into the
// buffer; those at BOS, EOS and padding stay out.
class ModelSource : public RowSource {
 public:
  ModelSource(Arena& arena, const Gemma2& model, int64_t context, int64_t sequences, const std::vector<Place>& places);
  // Before the first fill: where its tokens come from. Text, or a function that gives up to so many contexts, none when
  // its data have ended.
  using Tokens = std::function<TokenBatch(int64_t sequences)>;
  void open(const TokenStreamOptions& text, const SourcePosition* from = nullptr);
  void open(Tokens next) { next_ = std::move(next); }
  // Before the first fill: keeps the tokens behind the rows of a buffer of so many slots.
  void keep_origins(int64_t slots) { origins_ = std::make_unique<RowOrigins>(slots, tokens_.dim[1]); }
  void close();  // ends its threads and frees their memory
  Gemma2::Activations& activations() { return activations_; }
  std::vector<int64_t> widths() const override;
  int64_t chunk() const override { return tokens_.size(); }
  bool fill(Context& ctx, ActivationBuffer& buffer) override;
  double flops_per_row() const override;
  int64_t epoch() const override { return stream_ ? stream_->statistics().epoch : 0; }
  SourcePosition position() const override;  // in the text
  const RowOrigins* origins() const override { return origins_.get(); }
  void recompute(Context& ctx, ActivationBuffer& buffer, const RowOrigins::State& rows,
                 std::span<const int32_t> slots) override;

 private:
  void compute(Context& ctx, ActivationBuffer& buffer, std::vector<int32_t>& tokens);

  const Gemma2& model_;
  std::unique_ptr<TokenStream> stream_;
  Tokens next_;
  std::unique_ptr<RowOrigins> origins_;
  std::vector<Place> places_;
  Gemma2::Activations activations_;
  Tensor tokens_;  // (sequences, context) i32
  Upload upload_;
  bool uploads_ = false;  // upload_ is there
  Graph graph_;           // of the pass over a full batch
};

// Rows of a saved tensor, in file order, from the start again at its end.
class FileSource : public RowSource {
 public:
  // The tensor of `path` named `<site>.<layer>` after `place`, `activations`, or the only matrix in it; f32 or bf16. A
  // tensor that is named after another place is taken at its word, and place() is that one; an Error if `place` was
  // asked for (`insist`).
  FileSource(const std::string& path, Place place, bool insist, int64_t chunk);
  Place place() const { return place_; }
  std::vector<int64_t> widths() const override { return {width()}; }
  int64_t width() const { return rows_.dim[1]; }
  int64_t rows() const { return rows_.dim[0]; }
  int64_t chunk() const override { return chunk_; }
  // An Error names the first row that holds NaN or infinity.
  bool fill(Context& ctx, ActivationBuffer& buffer) override;
  double flops_per_row() const override { return 0; }
  int64_t epoch() const override { return epoch_; }
  SourcePosition position() const override { return {.text = {}, .row = next_, .epoch = epoch_}; }
  void recompute(Context&, ActivationBuffer&, const RowOrigins::State&, std::span<const int32_t>) override;
  void go_on_from(const SourcePosition& from);  // an Error if there is no such row

 private:
  void choose(bool insist);
  void check_finite(int64_t begin, int64_t end) const;
  Tensor on_device(Context& ctx, Tensor rows);

  SafetensorsFile file_;
  Place place_;
  std::string name_;
  Tensor rows_;     // (N, width), mapped
  Buffer staging_;  // a chunk of them on the device, where that is not the CPU
  int64_t chunk_, next_ = 0, epoch_ = 0;
};

// 2 FLOP for every weight that a token's forward pass to `layer` meets, and the attention's products.
double forward_flops_per_token(const GemmaConfig& c, int64_t context, Site site, int64_t layer);

}  // namespace gsae
