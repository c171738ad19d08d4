#include "tools/saved_parameters.h"

#include <fmt/format.h>

#include <cmath>

#include "io/safetensors.h"

namespace gsae {

namespace {

void load(Tensor out, const SafetensorsFile& file, const std::string& name) {
  const StoredTensor& stored = file.get(name);
  const std::vector<int64_t> wanted(out.dim.begin(), out.dim.begin() + out.rank);
  if (stored.shape != wanted)
    throw Error(fmt::format("{}: {} has shape [{}]; this run needs [{}] (see --width)", file.path(), name,
                            fmt::join(stored.shape, ", "), fmt::join(wanted, ", ")));
  float* values = out.data<float>();
  to_f32(values, stored);
  for (int64_t i = 0; i < out.size(); ++i)
    if (!std::isfinite(values[i])) throw Error(fmt::format("{}: {}[{}] is {}", file.path(), name, i, values[i]));
}

}  // namespace

SavedParameters::SavedParameters(const std::string& path, int64_t width, int64_t latents) {
  Arena plan;
  SaeParameters(plan, width, latents);
  memory = Buffer(Device::kCpu, plan.used());
  Arena arena(memory);
  params = SaeParameters(arena, width, latents);
  const SafetensorsFile file(path);
  load(params.W_enc, file, "W_enc");
  load(params.W_dec, file, "W_dec");
  load(params.b_enc, file, "b_enc");
  load(params.b_dec, file, "b_dec");
  load(params.threshold, file, "threshold");
  for (int64_t i = 0; i < latents; ++i) {
    const float theta = params.threshold.data<float>()[i];
    if (theta < 0) throw Error(fmt::format("{}: threshold[{}] is {}; thresholds are at least 0", path, i, theta));
    double square = 0;
    for (int64_t c = 0; c < width; ++c) {
      const double w = params.W_dec.data<float>()[i * width + c];
      square += w * w;
    }
    if (std::fabs(std::sqrt(square) - 1) > 1e-4)
      throw Error(fmt::format("{}: row {} of W_dec has norm {:.6g}; the decoder's rows must have unit norm", path, i,
                              std::sqrt(square)));
  }
}

}  // namespace gsae
