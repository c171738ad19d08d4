#include "model/site.h"

#include <fmt/format.h>

#include <array>

#include "kernels/check.h"

namespace gsae {

namespace {
constexpr std::array kNames{"pre", "att", "attn_out", "mlp_in", "mlp", "res"};
}

const char* name(Site s) { return kNames[static_cast<size_t>(s)]; }

Site parse_site(std::string_view text) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (text == kNames[i]) return static_cast<Site>(i);
  throw Error(fmt::format("unknown site '{}': must be one of {}", text, fmt::join(kNames, ", ")));
}

}  // namespace gsae
