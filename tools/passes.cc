#include "tools/passes.h"

#include <algorithm>
#include <numeric>

namespace gsae {

namespace {

using Parts = std::vector<std::vector<int>>;

std::vector<int> joined(const std::vector<int>& a, const std::vector<int>& b) {
  std::vector<int> all = a;
  all.insert(all.end(), b.begin(), b.end());
  std::sort(all.begin(), all.end());
  return all;
}

// Each into the last part, as long as it fits.
Parts next_fit(const Parts& pieces, const Fits& fits) {
  Parts parts;
  for (const std::vector<int>& piece : pieces) {
    if (!parts.empty() && fits(joined(parts.back(), piece))) parts.back() = joined(parts.back(), piece);
    else parts.push_back(piece);
  }
  return parts;
}

// The largest first, each into the first part where it fits.
Parts first_fit(Parts pieces, const std::vector<SaeShape>& saes, const Fits& fits) {
  const auto weights = [&](const std::vector<int>& piece) {
    int64_t sum = 0;
    for (const int i : piece) sum += saes[i].width * saes[i].latents;
    return sum;
  };
  std::stable_sort(pieces.begin(), pieces.end(), [&](const auto& a, const auto& b) { return weights(a) > weights(b); });
  Parts parts;
  for (const std::vector<int>& piece : pieces) {
    const auto room = std::find_if(parts.begin(), parts.end(),
                                   [&](const std::vector<int>& part) { return fits(joined(part, piece)); });
    if (room != parts.end()) *room = joined(*room, piece);
    else parts.push_back(piece);
  }
  return parts;
}

}  // namespace

std::vector<std::vector<int>> split_into_passes(const std::vector<SaeShape>& saes, const Fits& fits) {
  // by layer, the places of a layer one behind the other
  std::vector<int> order(saes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    const Place &p = saes[a].place, &q = saes[b].place;
    return p.layer != q.layer ? p.layer < q.layer : p.site < q.site;
  });
  Parts singles, places;
  for (const int i : order) {
    if (!fits({i})) return {};
    singles.push_back({i});
    if (!places.empty() && same_place(saes[places.back().back()], saes[i])) places.back().push_back(i);
    else places.push_back({i});
  }
  // A place that is too large for any pass is parts of its own.
  Parts together;
  for (std::vector<int>& place : places) {
    std::sort(place.begin(), place.end());
    Parts pieces;
    for (const int i : place) pieces.push_back({i});
    pieces = fits(place) ? Parts{place} : next_fit(pieces, fits);
    together.insert(together.end(), pieces.begin(), pieces.end());
  }
  Parts best;
  for (Parts parts : {next_fit(together, fits), first_fit(together, saes, fits), next_fit(singles, fits),
                      first_fit(singles, saes, fits)})
    if (best.empty() || parts.size() < best.size()) best = std::move(parts);
  return best;
}

}  // namespace gsae
