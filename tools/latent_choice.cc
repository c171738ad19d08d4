#include "tools/latent_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <tuple>

#include "kernels/philox.h"
#include "tools/options.h"

namespace gsae {

LatentChoice LatentChoice::parse(const std::string& text, int64_t count) {
  LatentChoice c{.count = count, .listed = {}};
  if (text == "top") return c;
  if (text == "random" || text == "none") {
    c.kind = text == "none" ? Kind::kNone : Kind::kRandom;
    return c;
  }
  c.kind = Kind::kListed;
  for (const std::string& part : split_list(text)) {
    int64_t latent = -1;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), latent);
    if (error != std::errc() || end != part.data() + part.size() || latent < 0)
      throw UsageError(fmt::format("'{}': must be numbers of latents, such as 7 or 1,2,3", text));
    if (std::find(c.listed.begin(), c.listed.end(), latent) == c.listed.end()) c.listed.push_back(latent);
  }
  return c;
}

void LatentChoice::require_count(const std::string& option) const {
  if (kind != Kind::kListed) return;
  throw UsageError(
      fmt::format("--count {}: is the number of top or random latents; {} says which they are", count, option));
}

int64_t LatentChoice::at_most(int64_t latents) const {
  switch (kind) {
    case Kind::kNone: return 0;
    case Kind::kListed: return static_cast<int64_t>(listed.size());
    default: return std::min(count, latents);
  }
}

void require_latents(const LatentChoice& choice, int64_t latents, const std::string& sae) {
  if (choice.kind != LatentChoice::Kind::kListed) return;
  for (const int64_t latent : choice.listed)
    if (latent >= latents) throw Error(fmt::format("{}: has latents 0 to {}, not {}", sae, latents - 1, latent));
}

std::vector<int64_t> choose_latents(const LatentChoice& choice, const LatentSummaries& latents, int64_t tokens,
                                    uint64_t seed, const std::string& sae) {
  require_latents(choice, latents.latents(), sae);
  if (choice.kind == LatentChoice::Kind::kListed) return choice.listed;
  std::vector<int64_t> live;
  for (int64_t i = 0; i < latents.latents(); ++i)
    if (latents.count(i) > 0) live.push_back(i);
  const auto count =
      static_cast<size_t>(std::min(choice.at_most(latents.latents()), static_cast<int64_t>(live.size())));
  if (choice.kind == LatentChoice::Kind::kRandom) {
    const Random random(seed, Random::kChooseLatents);
    for (size_t i = 0; i < count; ++i) std::swap(live[i], live[i + random.below(live.size() - i, i)]);
    live.resize(count);
    std::sort(live.begin(), live.end());
    return live;
  }
  const auto rank = [&](int64_t i) {
    const bool dense = double(latents.count(i)) > kDense * double(tokens);
    return std::tuple(dense, -latents.sum(i), i);
  };
  std::partial_sort(live.begin(), live.begin() + static_cast<int64_t>(count), live.end(),
                    [&](int64_t a, int64_t b) { return rank(a) < rank(b); });
  live.resize(count);
  return live;
}

}  // namespace gsae
