#include "tools/steering.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include "tools/options.h"

namespace gsae {

Edit parse_edit(const std::string& option, const std::string& text) {
  const bool has_value = option != "--ablate";
  const auto refuse = [&] {
    throw UsageError(fmt::format("{} {}: must be {}, such as run/res.3/4k/l0_32:{}", option, text,
                                 has_value ? "SAE:latent=value" : "SAE:latent", has_value ? "123=20.5" : "123"));
  };
  const size_t colon = text.rfind(':'),
               equals = has_value ? text.find('=', colon == text.npos ? 0 : colon) : text.size();
  if (colon == text.npos || colon == 0 || equals == text.npos) refuse();
  Edit edit{.option = option, .sae = text.substr(0, colon)};
  const char *begin = text.data() + colon + 1, *end = text.data() + equals;
  const auto [stop, error] = std::from_chars(begin, end, edit.latent);
  if (error != std::errc() || stop != end || begin == end || edit.latent < 0) refuse();
  constexpr double kLargest = std::numeric_limits<float>::max();
  if (!has_value) return edit;
  const std::string value = text.substr(equals + 1);
  try {
    edit.value = parse_number(option.c_str(), value, -kLargest, kLargest);
  } catch (const UsageError&) {
    throw UsageError(
        fmt::format("{} {}: '{}' must be a number from {:g} to {:g}", option, text, value, -kLargest, kLargest));
  }
  return edit;
}

namespace {

// By which an SAE is the same under another name.
std::string true_path(const ChosenSae& sae) {
  std::error_code ignored;
  return std::filesystem::weakly_canonical(sae.file.path, ignored).string();
}

// Latents of one place on their way to the device.
struct Gathered {
  std::vector<float> decoder, encoder, bias, threshold, amount, gain;

  void add(const SaeParameters& p, const Edit& e) {
    const int64_t d = p.width(), F = p.latents(), i = e.latent;
    const float *row = p.W_dec.data<float>() + i * d, *column = p.W_enc.data<float>() + i;
    decoder.insert(decoder.end(), row, row + d);
    for (int64_t c = 0; c < d; ++c) encoder.push_back(column[c * F]);
    bias.push_back(p.b_enc.data<float>()[i]);
    threshold.push_back(p.threshold.data<float>()[i]);
    amount.push_back(static_cast<float>(e.value));
    gain.push_back(e.clamps() ? 1.0f : 0.0f);
  }

  SteeredLatents upload(Context& ctx, Buffer& memory) const {
    const auto k = static_cast<int64_t>(bias.size()), d = static_cast<int64_t>(decoder.size()) / k;
    SteeredLatents s;
    const auto lay_out = [&](Arena& arena) {
      for (Tensor* t : {&s.decoder, &s.encoder}) *t = arena.take("steered latents", DType::kF32, {k, d});
      for (Tensor* t : {&s.bias, &s.threshold, &s.amount, &s.gain})
        *t = arena.take("steered latents", DType::kF32, {k});
    };
    Arena plan;
    lay_out(plan);
    memory = Buffer(ctx.device(), plan.used());
    Arena arena(memory);
    lay_out(arena);
    const auto send = [&](Tensor to, const std::vector<float>& from) {
      copy(ctx, to.reshape({to.size()}), view(const_cast<float*>(from.data()), {to.size()}));
    };
    send(s.decoder, decoder), send(s.encoder, encoder), send(s.bias, bias);
    send(s.threshold, threshold), send(s.amount, amount), send(s.gain, gain);
    ctx.synchronize();  // before the host's memory goes
    return s;
  }
};

}  // namespace

Steering::Steering(Context& ctx, const std::vector<Edit>& edits, const std::vector<ChosenSae>& saes) {
  std::set<std::pair<std::string, int64_t>> seen;  // file and latent
  std::vector<std::pair<SaePlace, Gathered>> gathered;
  std::set<std::string> done;
  for (const ChosenSae& sae : saes) {
    const std::string path = true_path(sae);
    if (!done.insert(path).second) continue;  // the same by another name: its edits came with the first
    LoadedSae loaded;
    for (const Edit& edit : edits) {
      const auto chosen = std::find_if(saes.begin(), saes.end(), [&](const auto& s) { return s.given == edit.sae; });
      if (chosen == saes.end() || true_path(*chosen) != path) continue;
      if (edit.latent >= sae.file.latents)
        throw Error(fmt::format("{} {}:{}: the SAE has latents 0 to {}", edit.option, edit.sae, edit.latent,
                                sae.file.latents - 1));
      if (!seen.emplace(path, edit.latent).second)
        throw UsageError(
            fmt::format("{} {}:{}: another option is about the same latent", edit.option, edit.sae, edit.latent));
      if (!loaded.params.W_dec) loaded = load_sae(sae.file);
      auto at = std::find_if(gathered.begin(), gathered.end(), [&](const auto& g) { return g.first == sae.place; });
      if (at == gathered.end()) at = gathered.insert(at, {sae.place, {}});
      at->second.add(loaded.params, edit);
    }
  }
  for (const auto& [place, latents] : gathered) {
    if (static_cast<int64_t>(latents.bias.size()) > kMostSteered)
      throw UsageError(
          fmt::format("more than {} latents of site {}.{} are edited", kMostSteered, name(place.site), place.layer));
    AtPlace& at = places_.emplace_back();
    at.place = place;
    at.latents = latents.upload(ctx, at.memory);
  }
}

std::vector<Hook> Steering::hooks(const std::function<int64_t()>& skipped) {
  std::vector<Hook> hooks;
  for (const AtPlace& at : places_)
    hooks.push_back({.site = at.place.site,
                     .layer = at.place.layer,
                     .edits = true,
                     .call = [latents = at.latents, skipped](Context& ctx, Tensor rows) {
                       steer(ctx, rows.rows(skipped(), rows.dim[0]), latents);
                     }});
  return hooks;
}

nlohmann::ordered_json to_json(const Edit& edit) {
  nlohmann::ordered_json j{{"sae", edit.sae}, {"latent", edit.latent}};
  if (edit.option == "--ablate") j["ablate"] = true;
  else j[edit.clamps() ? "clamp" : "strength"] = edit.value;
  return j;
}

}  // namespace gsae
