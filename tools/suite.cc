#include "tools/suite.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "tools/options.h"

namespace gsae {

namespace {

std::string sparsity_name(double l0, double lambda) {
  if (l0 == 0) return fmt::format("lambda_{}", lambda);  // the shortest digits that are this number: names differ
  return lambda == 0 ? fmt::format("l0_{}", l0) : fmt::format("l0_{}_lambda_{}", l0, lambda);
}

template <class T> std::vector<T> sorted(std::vector<T> list) {
  std::sort(list.begin(), list.end());
  return list;
}

}  // namespace

std::string SuiteMember::name() const {
  return fmt::format("{}.{}/{}/{}", gsae::name(site), layer, format_width(latents), sparsity_name(l0, lambda));
}

std::vector<SuiteMember> make_suite(const SuiteLists& lists) {
  const std::vector<double> none{0};
  const std::vector<double>& l0s = lists.l0s.empty() ? none : lists.l0s;
  const std::vector<double>& lambdas = lists.lambdas.empty() ? none : lists.lambdas;
  double count = 1;
  for (const size_t n : {lists.layers.size(), lists.sites.size(), lists.widths.size(), l0s.size(), lambdas.size()})
    count *= double(n);
  if (count > double(kMostSaes))
    throw UsageError(fmt::format(
        "--layer, --site, --width and --l0 or --lambda ask for {} x {} x {} x {} = {:.0f} SAEs: "
        "one run trains at most {}",
        lists.layers.size(), lists.sites.size(), lists.widths.size(), l0s.size() * lambdas.size(), count, kMostSaes));
  std::vector<SuiteMember> suite;
  for (const int64_t layer : sorted(lists.layers))
    for (const Site site : sorted(lists.sites))
      for (const int64_t latents : sorted(lists.widths))
        for (const double l0 : sorted(l0s))
          for (const double lambda : sorted(lambdas)) suite.push_back({site, layer, latents, l0, lambda});
  return suite;
}

int64_t count_places(std::span<const SuiteMember> suite) {
  std::set<std::pair<Site, int64_t>> places;
  for (const SuiteMember& m : suite) places.emplace(m.site, m.layer);
  return static_cast<int64_t>(places.size());
}

int64_t count_sites(std::span<const SuiteMember> suite) {
  std::set<Site> sites;
  for (const SuiteMember& m : suite) sites.insert(m.site);
  return static_cast<int64_t>(sites.size());
}

std::string suite_name(std::span<const SuiteMember> suite) {
  std::set<Site> sites;
  std::set<int64_t> layers, widths;
  std::set<double> l0s, lambdas;
  for (const SuiteMember& m : suite) {
    sites.insert(m.site), layers.insert(m.layer), widths.insert(m.latents);
    l0s.insert(m.l0), lambdas.insert(m.lambda);
  }
  std::string text;
  for (const Site site : sites) text += fmt::format("{}{}", text.empty() ? "" : "+", name(site));
  const auto add = [&](const char* what, const auto& values, auto&& format) {
    text += fmt::format("_{}_{}", what, format(*values.begin()));
    if (values.size() > 1) text += fmt::format("-{}", format(*values.rbegin()));
  };
  const auto plain = [](auto value) { return fmt::format("{}", value); };
  add("layer", layers, plain);
  add("width", widths, format_width);
  const bool targets = *l0s.rbegin() > 0;
  if (targets) add("l0", l0s, plain);
  if (!targets || *lambdas.rbegin() > 0) add("lambda", lambdas, plain);
  return text;
}

}  // namespace gsae
