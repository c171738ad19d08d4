#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/transfer.h"
#include "sae/activation_buffer.h"

namespace gsae {

// Watches how long the activations are that arrive at a buffer: one row of 1e4 times the usual length outweighs all
// others in a loss of squares, and one that holds NaN ends an SAE.
//
// The measure is the mean norm of a place's rows before that were no outliers themselves; of the first rows that
// arrive, their median.
class OutlierWatch {
 public:
  static constexpr double kOutlier = 1e4;  // times the mean norm: is counted

  // What it has seen at one place.
  struct Seen {
    int64_t rows = 0, outliers = 0, dropped = 0;  // rows: that make up the mean
    double norms = 0;                             // sum over them
    double longest = 0;                           // of the others, in mean norms
  };
  // A row with NaN or infinity: the place, and which of the rows of its fill.
  struct Broken {
    int64_t place = 0, row = 0;
  };

  // longest: rows of more than so many mean norms at any place are dropped at all of them; 0: none are.
  OutlierWatch(int64_t places, double longest) : longest_(longest), seen_(places) {}

  // After the rows of a fill have been written at each place. If rows may be dropped, it waits for their norms, and the
  // buffer has none of them when this returns; else it looks at them when they are there, at the next call at the
  // latest.
  std::optional<Broken> arrived(Context& ctx, ActivationBuffer& buffer);
  // Looks at those that it has not looked at yet: seen() is up to date then.
  std::optional<Broken> finish();

  const std::vector<Seen>& seen() const { return seen_; }
  void restore(std::vector<Seen> seen);  // goes on from there; an Error unless it is of as many places

 private:
  std::optional<Broken> look(std::vector<int32_t>& drop);

  double longest_;
  std::vector<Seen> seen_;
  Readback readback_;
  bool reads_ = false;   // readback_ is there
  int64_t waiting_ = 0;  // rows of the fill whose norms are on their way
  std::vector<float> sorted_;
};

}  // namespace gsae
