#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace gsae {

// Which activations an SAE reads, as far as its file says. Sites carry the names of docs/design.md;
// this side knows nothing of the model.
struct SaeLocation {
  std::string model;   // hub id, or a name such as gemma-2-2b; empty: not said
  std::string site;    // "pre" "att" "attn_out" "mlp_in" "mlp" "res"; empty: not said
  int64_t layer = -1;  // -1: not said
  // Where site is empty: what the file says it reads, if that is no site of ours. Then no option and no folder's name
  // may say otherwise.
  std::string elsewhere = {};

  // Takes from `other` what is not said here.
  void complete(const SaeLocation& other);
};

bool is_site(std::string_view name);

// Of a hook's name: TransformerLens' (blocks.3.hook_resid_post, blocks.3.attn.hook_z) or that of the
// module in transformers (model.layers.3, model.layers.3.self_attn.o_proj.input). Hooks that are no
// site of ours lie elsewhere; an empty name says nothing.
SaeLocation location_of_hook(std::string_view hook);

// The hooks of a layer's site, by both names; empty for a site that has none.
std::string transformer_lens_hook(const SaeLocation& at);
std::string transformers_hook(const SaeLocation& at);

// Of the folders that a file lies in: ours (mlp/layer_20/width_16k/average_l0_71/; a folder called mlp means nothing
// without its layer_20) and Gemma Scope's (gemma-scope-2b-pt-res/layer_20/...), the hub cache's names included.
SaeLocation location_of_path(const std::string& path);

// A Gemma Scope transcoder (gemma-scope-2b-pt-transcoders/...) has an SAE's arrays and would load as one, but
// reconstructs another site.
bool is_transcoder_path(const std::string& path);

}  // namespace gsae
