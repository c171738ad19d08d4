#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "kernels/context.h"
#include "kernels/memory.h"
#include "model/config.h"

namespace gsae {

// One layer's weights, each f32 or bf16 as the checkpoint holds it. A linear layer's weight is
// (outputs, inputs).
struct LayerWeights {
  Tensor norm_in;        // (d)
  Tensor q;              // (Hq dh, d)
  Tensor k, v;           // (Hkv dh, d)
  Tensor o;              // (d, Hq dh)
  Tensor norm_post_att;  // (d)
  Tensor norm_pre_ffw;   // (d)
  Tensor gate, up;       // (ffn, d)
  Tensor down;           // (d, ffn)
  Tensor norm_post_ffw;  // (d)
};

// A Gemma 2 checkpoint as Hugging Face publishes it: model.safetensors, or
// model.safetensors.index.json with the shards beside it.
//
// On the CPU, F32 and BF16 tensors are views of the mapped files: nothing is read before it is used,
// and there is no second copy. F16 tensors (widened to f32) and tensors that a file lays at an
// address their element cannot have are copied once.
//
// On a GPU every tensor is uploaded by itself, the matrices in the type that the model computes in and the norms as
// f32; q, k, v lie one behind the other, and so do gate and up: kernels/matmul.h makes one product of each.
//
// An Error names the file and the tensor that is missing, of another shape than the config asks for
// or of another dtype.
struct GemmaWeights {
  GemmaWeights(Context& ctx, const std::string& dir, const GemmaConfig& c, DType compute);

  // Random ones, for what does not depend on their values (benchmarks): matrices of `compute`, normal, of a variance
  // that keeps activations near 1; norms that scale by one.
  GemmaWeights(Context& ctx, const GemmaConfig& c, DType compute, uint64_t seed);

  // The shapes of those alone, and what they would take (owned_bytes), without memory: for a plan.
  GemmaWeights(const GemmaConfig& c, DType compute);

  Tensor embedding;  // (V, d), of input and output
  std::vector<LayerWeights> layers;
  Tensor final_norm;  // (d)

  // An Error that names the tensor if a weight of this layer (of the embedding) is NaN or infinite.
  // Reads every weight, once: the second call for a layer does nothing. So it belongs before a layer's
  // first use, where its pages have to be read anyway; for all of gigabytes at once it would delay the
  // start by seconds.
  void require_finite(Context& ctx, int64_t layer) const;
  void require_finite_embedding(Context& ctx) const;

  size_t mapped_bytes = 0;  // what the views point at
  size_t owned_bytes = 0;   // what was copied or uploaded

 private:
  void lay_out(std::optional<Device> device, const GemmaConfig& c, DType compute);  // none: only counts
  Tensor load(Context& ctx, const std::string& name, const StoredTensor& stored, const std::vector<int64_t>& shape,
              Tensor place);

  std::string path_;
  std::vector<SafetensorsFile> files_;
  std::vector<Buffer> copies_;
  mutable std::vector<bool> finite_;  // (layers + 1): seen to be so; the last: the embedding
};

}  // namespace gsae
