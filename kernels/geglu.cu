#include "kernels/geglu.h"

#include "kernels/launch.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kThreads = 128;  // 9216 = 9 blocks of 8 elements a thread, 14336 = 14 of them, 36864 = 36

// g / (1 + exp(-z2)), z2 = 2 sqrt(2/pi) (g + 0.044715 g^3), by one base-2 exponential and one reciprocal.
__device__ inline float gelu(float g) {
  constexpr float kLinear = -2.3022081983f;  // -2 sqrt(2/pi) / ln 2
  constexpr float kCubic = -0.1029432396f;   // 0.044715 of it
  return __fdividef(g, 1.0f + exp2f(g * (kLinear + kCubic * g * g)));
}

// A block takes consecutive elements of one row.
template <class Out, class In, int kStep>
__global__ void __launch_bounds__(kThreads)
    geglu_kernel(Out* out, const In* __restrict__ gate_up, int64_t ffn, unsigned row_blocks) {
  const int64_t r = blockIdx.x / row_blocks, c = (int64_t(blockIdx.x % row_blocks) * kThreads + threadIdx.x) * kStep;
  if (c >= ffn) return;
  float gate[kStep], up[kStep];
  load_row<kStep>(gate, gate_up + 2 * r * ffn + c);
  load_row<kStep>(up, gate_up + (2 * r + 1) * ffn + c);
  for (int i = 0; i < kStep; ++i) gate[i] = gelu(gate[i]) * up[i];
  store_row<kStep>(out + r * ffn + c, gate);
}

}  // namespace

void geglu(Context& ctx, Tensor out, Tensor gate_up) {
  const Range range("geglu");
  const int64_t n = out.dim[0], ffn = out.dim[1];
  dispatch_device_float(out.dtype, [&]<class Out>() {
    dispatch_device_float(gate_up.dtype, [&]<class In>() {
      constexpr int kVector = 16 / sizeof(In);
      const bool vector = ffn % kVector == 0 && aligned(16, {out.ptr, gate_up.ptr});
      const int64_t block = kThreads * (vector ? kVector : 1), row_blocks = (ffn + block - 1) / block;
      launch(vector ? geglu_kernel<Out, In, kVector> : geglu_kernel<Out, In, 1>, n * row_blocks, kThreads, 0,
             ctx.cuda().stream, device_data<Out>(out), device_data<In>(gate_up), ffn,
             static_cast<unsigned>(row_blocks));
    });
  });
}

}  // namespace gsae::cuda
