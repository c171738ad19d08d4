#include "io/packer.h"

#include <algorithm>

namespace gsae {

void Packer::add(std::vector<int32_t>& out, const int32_t* ids, size_t n) {
  while (n > 0) {
    if (current_.empty() && ids[0] != bos_) current_.push_back(bos_);
    const size_t take = std::min(n, static_cast<size_t>(context_) - current_.size());
    current_.insert(current_.end(), ids, ids + take);
    ids += take;
    n -= take;
    if (current_.size() < static_cast<size_t>(context_)) return;
    out.insert(out.end(), current_.begin(), current_.end());
    current_.clear();
  }
}

}  // namespace gsae
