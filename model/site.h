#pragma once

#include <string_view>

namespace gsae {

// The places of a layer where activations can be read or replaced, in the order in which the layer
// reaches them. Widths: Hq * dh for `att`, d elsewhere.
enum class Site { kPre, kAtt, kAttnOut, kMlpIn, kMlp, kRes };

const char* name(Site s);                // "pre" "att" "attn_out" "mlp_in" "mlp" "res"
Site parse_site(std::string_view text);  // an Error that lists the sites

}  // namespace gsae
