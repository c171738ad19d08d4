#pragma once

#include <memory>

#include "kernels/context.h"

namespace gsae {

// Adds up how long parts of a context's work take on its device, without a wait: by events on cuda, by the clock on
// cpu.
class Stopwatch {
 public:
  void start(Context& ctx);
  void stop(Context& ctx);
  double seconds();  // of the intervals that have ended on the device by now

  struct Lane {
    virtual ~Lane() = default;
    virtual void start(Context& ctx) = 0;
    virtual void stop(Context& ctx) = 0;
    virtual double seconds() = 0;
  };

 private:
  std::shared_ptr<Lane> lane_;
};

namespace cpu {
std::shared_ptr<Stopwatch::Lane> make_stopwatch();
}
namespace cuda {
std::shared_ptr<Stopwatch::Lane> make_stopwatch();
}

}  // namespace gsae
