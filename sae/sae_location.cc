#include "sae/sae_location.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <utility>
#include <vector>

namespace gsae {

namespace {

using Names = std::pair<std::string_view, std::string_view>;

constexpr std::array kTransformerLens{
    Names{"hook_resid_pre", "pre"}, Names{"attn.hook_z", "att"},  Names{"hook_attn_out", "attn_out"},
    Names{"mlp.hook_in", "mlp_in"}, Names{"hook_mlp_out", "mlp"}, Names{"hook_resid_post", "res"},
};
// Gemma 2 norms what attention and MLP return: TransformerLens' hooks lie behind that norm, and so
// does the module here; model.layers.L.mlp itself is another place.
constexpr std::array kTransformers{
    Names{"input", "pre"},
    Names{"self_attn.o_proj.input", "att"},
    Names{"post_attention_layernorm", "attn_out"},
    Names{"post_attention_layernorm.output", "attn_out"},
    Names{"pre_feedforward_layernorm", "mlp_in"},
    Names{"pre_feedforward_layernorm.output", "mlp_in"},
    Names{"post_feedforward_layernorm", "mlp"},
    Names{"post_feedforward_layernorm.output", "mlp"},
    Names{"", "res"},
    Names{"output", "res"},
};
constexpr std::array<std::string_view, 6> kSites{"pre", "att", "attn_out", "mlp_in", "mlp", "res"};

// "3.rest" -> 3, leaving "rest"; false without a number there.
bool take_layer(std::string_view& text, int64_t& layer) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  if (error != std::errc() || layer < 0) return false;
  text.remove_prefix(end - text.data());
  if (text.starts_with('.')) text.remove_prefix(1);
  else if (!text.empty()) return false;
  return true;
}

template <size_t N> std::string_view lookup(const std::array<Names, N>& table, std::string_view name) {
  for (const auto& [hook, site] : table)
    if (name == hook) return site;
  return {};
}

std::vector<std::string> folders_of(const std::string& path) {
  std::vector<std::string> folders;
  for (const auto& part : std::filesystem::path(path)) folders.push_back(part.string());
  return folders;
}

constexpr std::string_view kScope = "gemma-scope-";

std::string_view without_cache_prefix(std::string_view folder) {
  constexpr std::string_view kCache = "models--google--";
  if (folder.starts_with(kCache)) folder.remove_prefix(kCache.size());
  return folder;
}

// gemma-scope-9b-it-res, or models--google--gemma-scope-9b-it-res in the hub cache.
bool take_gemma_scope(std::string_view folder, SaeLocation& at) {
  folder = without_cache_prefix(folder);
  if (!folder.starts_with(kScope)) return false;
  folder.remove_prefix(kScope.size());
  const size_t size = folder.find('-'), kind = folder.find('-', size + 1);
  if (size == folder.npos || kind == folder.npos) return false;
  at.model = "google/gemma-2-" + std::string(folder.substr(0, size));
  if (folder.substr(size + 1, kind - size - 1) == "it") at.model += "-it";
  const std::string_view site = folder.substr(kind + 1);
  for (const std::string_view s : {"res", "mlp", "att"})
    if (site == s) at.site = s;
  return true;
}

}  // namespace

void SaeLocation::complete(const SaeLocation& other) {
  if (model.empty()) model = other.model;
  if (!elsewhere.empty()) return;
  if (site.empty()) site = other.site, elsewhere = other.elsewhere;
  if (layer < 0) layer = other.layer;
}

bool is_site(std::string_view name) { return std::find(kSites.begin(), kSites.end(), name) != kSites.end(); }

SaeLocation location_of_hook(std::string_view hook) {
  const std::string_view whole = hook;
  constexpr std::string_view kBlocks = "blocks.", kLayers = "model.layers.";
  SaeLocation at;
  std::string_view site;
  if (hook.starts_with(kBlocks)) {
    hook.remove_prefix(kBlocks.size());
    if (take_layer(hook, at.layer)) site = lookup(kTransformerLens, hook);
  } else if (hook.starts_with(kLayers)) {
    hook.remove_prefix(kLayers.size());
    if (take_layer(hook, at.layer)) site = lookup(kTransformers, hook);
  }
  if (site.empty()) return {.model = {}, .site = {}, .layer = -1, .elsewhere = std::string(whole)};
  at.site = site;
  return at;
}

std::string transformer_lens_hook(const SaeLocation& at) {
  for (const auto& [hook, site] : kTransformerLens)
    if (at.site == site) return fmt::format("blocks.{}.{}", at.layer, hook);
  return {};
}

std::string transformers_hook(const SaeLocation& at) {
  const Names* last = nullptr;  // the form that says whether it is the input or the output
  for (const Names& names : kTransformers)
    if (at.site == names.second) last = &names;
  return last ? fmt::format("model.layers.{}.{}", at.layer, last->first) : "";
}

SaeLocation location_of_path(const std::string& path) {
  SaeLocation at;
  std::string above;
  bool of_scope = false;
  for (const std::string& folder : folders_of(path)) {  // the innermost wins
    constexpr std::string_view kLayer = "layer_", kEmbedding = "embedding";
    std::string_view rest = folder;
    int64_t layer = 0;
    if (rest.starts_with(kLayer)) {
      rest.remove_prefix(kLayer.size());
      if (take_layer(rest, layer) && rest.empty()) {
        at.layer = layer;
        if (is_site(above)) at.site = above;
      }
    } else if (take_gemma_scope(folder, at)) {
      of_scope = true;
    } else if (of_scope && folder == kEmbedding) {
      at.site.clear(), at.elsewhere = "the token embeddings";
    }
    above = folder;
  }
  return at;
}

bool is_transcoder_path(const std::string& path) {
  for (const std::string& folder : folders_of(path))
    if (without_cache_prefix(folder).starts_with(kScope) && folder.ends_with("-transcoders")) return true;
  return false;
}

}  // namespace gsae
