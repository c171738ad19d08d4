#include "kernels/range.h"

#include "kernels/dispatch.h"

namespace gsae {

#if GSAE_CUDA
namespace cuda {
void push_range(const char* name);
void pop_range();
void start_profiler();
void stop_profiler();
}  // namespace cuda

Range::Range(const char* name) { cuda::push_range(name); }
Range::~Range() { cuda::pop_range(); }
void start_profiler() { cuda::start_profiler(); }
void stop_profiler() { cuda::stop_profiler(); }
#else
Range::Range(const char*) {}
Range::~Range() = default;
void start_profiler() {}
void stop_profiler() {}
#endif

}  // namespace gsae
