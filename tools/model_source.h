#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/graph.h"
#include "kernels/transfer.h"
#include "model/gemma2.h"
#include "tools/row_source.h"

namespace gsae {

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

// 2 FLOP for every weight that a token's forward pass to `layer` meets, and the attention's products.
double forward_flops_per_token(const GemmaConfig& c, int64_t context, Site site, int64_t layer);

}  // namespace gsae
