#pragma once

#include <functional>
#include <vector>

#include "tools/run_sizes.h"

namespace gsae {

// Whether these of the SAEs (their indices) can be trained in one pass over the data. Of what fits, every part fits.
using Fits = std::function<bool(const std::vector<int>&)>;

// The suite in parts that fit, as few as are found: each SAE's index in one of them, ascending. Those of one place stay
// together where that costs no further pass, and so do neighbouring layers: the early passes then run less of the
// model. Empty if an SAE does not fit alone.
//
// The fewest parts of a suite whose parts need not be neighbours are a bin packing. Tried are runs of neighbours, as
// long as they fit, and first fit by size; each with the SAEs of a place together and without. Both find the fewest
// where all places, or all SAEs, are of a size.
std::vector<std::vector<int>> split_into_passes(const std::vector<SaeShape>& saes, const Fits& fits);

}  // namespace gsae
