#include "tools/remedies.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "tools/options.h"
#include "tools/passes.h"

namespace gsae {

namespace {

// 1234567 -> 1200000: two digits are enough to type.
int64_t rounded_down(int64_t n) {
  int64_t unit = 1;
  while (n / unit >= 100) unit *= 10;
  return n / unit * unit;
}

std::string count_text(int64_t n) {
  if (n % 1'000'000 == 0) return fmt::format("{}M", n / 1'000'000);
  return n % 1000 == 0 ? fmt::format("{}k", n / 1000) : std::to_string(n);
}

class Search {
 public:
  Search(const RunChoices& choices, const Planner& plan) : choices_(choices), planner_(plan), now_(plan(choices)) {}

  std::optional<Remedy> buffer() const {
    RunChoices c = choices_;
    int64_t low = now_.suite.least, high = now_.suite.rows;
    const auto fits = [&](int64_t rows) { return c.buffer = rows, this->fits(c); };
    if (low >= high || !fits(low)) return {};
    const int64_t least = low;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (fits(middle) ? low : high) = middle;
    }
    c.buffer = std::max(least, rounded_down(low));
    return remedy(fmt::format("--buffer {}", count_text(c.buffer)), c);
  }

  std::optional<Remedy> model_batch() const {
    if (choices_.model_batch == 0) return {};  // the plan has tried them
    return halved("--model-batch", now_.contexts, 1, [](RunChoices& c, int64_t contexts) { c.model_batch = contexts; });
  }

  std::optional<Remedy> dtype() const {
    RunChoices c = choices_;
    c.dtype = DType::kBF16;
    return remedy("--dtype bf16", c);
  }

  std::optional<Remedy> precision() const {
    RunChoices c = choices_;
    c.precision = DType::kBF16;
    return remedy("--precision bf16", c);
  }

  std::optional<Remedy> passes() const {
    const auto parts = split_into_passes(choices_.saes, [&](const std::vector<int>& part) { return fits(of(part)); });
    if (parts.size() < 2) return {};
    int64_t largest = 0;
    for (const std::vector<int>& part : parts) largest = std::max(largest, planner_(of(part)).memory.total());
    return Remedy{fmt::format("fewer SAEs at once: --passes {}", parts.size()), now_.memory.total() - largest};
  }

  std::optional<Remedy> batch() const {
    return halved("--batch", choices_.batch, 64, [](RunChoices& c, int64_t rows) { c.batch = rows; });
  }

  std::optional<Remedy> context() const {
    return halved("--context", choices_.context, 64, [](RunChoices& c, int64_t tokens) { c.context = tokens; });
  }

  // A limit to the widths: the largest power of two that fits.
  std::optional<Remedy> width() const {
    int64_t widest = 0;
    for (const SaeShape& s : choices_.saes) widest = std::max(widest, s.latents);
    int64_t limit = 1;
    while (2 * limit < widest) limit *= 2;
    for (; limit >= 64; limit /= 2) {
      RunChoices c = choices_;
      c.saes.clear();
      std::vector<int64_t> widths;
      for (SaeShape s : choices_.saes) {
        s.latents = std::min(s.latents, limit);
        if (double(s.latents) <= s.l0) return {};
        const bool twice = std::any_of(c.saes.begin(), c.saes.end(), [&](const SaeShape& o) {
          return same_place(s, o) && s.latents == o.latents && s.l0 == o.l0;
        });
        if (!twice) c.saes.push_back(s);
        if (std::find(widths.begin(), widths.end(), s.latents) == widths.end()) widths.push_back(s.latents);
      }
      std::string list;
      for (const int64_t w : widths) list += (list.empty() ? "" : ",") + format_width(w);
      if (auto found = remedy("--width " + list, c)) return found;
    }
    return {};
  }

 private:
  bool fits(const RunChoices& c) const {
    try {
      return planner_(c).memory.fits();
    } catch (const UsageError&) {  // such as a --buffer that is too small for this --batch
      return false;
    }
  }

  std::optional<Remedy> remedy(const std::string& change, const RunChoices& c) const {
    if (!fits(c)) return {};
    return Remedy{change, now_.memory.total() - planner_(c).memory.total()};
  }

  template <class Set>
  std::optional<Remedy> halved(const char* option, int64_t now, int64_t least, const Set& set) const {
    for (int64_t n = now / 2; n >= least; n /= 2) {
      RunChoices c = choices_;
      set(c, n);
      if (auto found = remedy(fmt::format("{} {}", option, n), c)) return found;
    }
    return {};
  }

  RunChoices of(const std::vector<int>& part) const {
    RunChoices c = choices_;
    c.saes.clear();
    for (const int i : part) c.saes.push_back(choices_.saes[i]);
    return c;
  }

  const RunChoices& choices_;
  const Planner& planner_;
  RunPlan now_;
};

}  // namespace

std::vector<Remedy> cheapest_ways(const RunChoices& choices, const Planner& plan, size_t most) {
  const Search search(choices, plan);
  std::vector<Remedy> ways;
  for (const auto find : {&Search::buffer, &Search::model_batch, &Search::dtype, &Search::precision, &Search::passes,
                          &Search::batch, &Search::context, &Search::width}) {
    if (ways.size() == most) break;
    if (const auto way = (search.*find)()) ways.push_back(*way);
  }
  return ways;
}

std::string describe_ways(const std::vector<Remedy>& ways, const MemoryPlan& plan) {
  if (ways.empty())
    return fmt::format("{} are missing, and no option alone saves as much: another model, or a device with more memory",
                       format_bytes(-plan.left()));
  std::string text = fmt::format("{} are missing. {}, the cheapest first:", format_bytes(-plan.left()),
                                 ways.size() > 1 ? "Any of these is enough" : "This is enough");
  for (const Remedy& way : ways) text += fmt::format("\n  {:<36} saves {}", way.change, format_bytes(way.saves));
  return text;
}

}  // namespace gsae
