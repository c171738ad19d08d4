#include "kernels/latent_update.h"

#include <cmath>

#include "kernels/adam.h"
#include "kernels/checkf.h"
#include "kernels/convert.h"
#include "kernels/cpu.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"
#include "kernels/row_sums.h"

namespace gsae {

namespace {

void check_latents(const char* op, const char* what, const LatentTensors& x, int64_t latents, int64_t d) {
  for (const Tensor& rows : {x.W_enc, x.W_dec})
    CHECKF(rows.is({latents, d}) && rows.dtype == DType::kF32, "{}: rows of {} {} must be f32[{}, {}]", op, what, rows,
           latents, d);
  for (const Tensor& each : {x.b_enc, x.threshold})
    CHECKF(each.is({latents}) && each.dtype == DType::kF32, "{}: {} {} must be f32[{}]", op, what, each, latents);
}

void check_state(const char* op, const LatentState& s, Tensor rates, Tensor clock) {
  CHECKF(s.p.W_enc.rank == 2, "{}: W_enc {} must be (F, d)", op, s.p.W_enc);
  const int64_t latents = s.p.latents(), d = s.p.width();
  check_latents(op, "parameters", s.p, latents, d);
  check_latents(op, "moments", s.v, latents, d);
  for (const Tensor& copy : {s.W_enc16, s.W_dec16})
    CHECKF(!copy || (copy.is({latents, d}) && copy.dtype == DType::kBF16), "{}: copy {} must be bf16[{}, {}]", op, copy,
           latents, d);
  CHECKF(s.stamp.is({latents}) && s.stamp.dtype == DType::kI64, "{}: stamp {} must be i64[{}]", op, s.stamp, latents);
  CHECKF(rates.is({kRates}) && rates.dtype == DType::kF32, "{}: rates {} must be f32[{}]", op, rates, int{kRates});
  CHECKF(clock.is({1}) && clock.dtype == DType::kI64, "{}: clock {} must be i64[1]", op, clock);
}

}  // namespace

void update_latents(Context& ctx, const LatentState& s, const LatentTensors& g, Tensor rates, Tensor clock,
                    LatentUpdateOptions o) {
  check_state("update_latents", s, rates, clock);
  check_latents("update_latents", "gradients", g, s.p.latents(), s.p.width());
  if (s.p.W_enc.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), update_latents(ctx, s, g, rates, clock, o));
}

void update_listed_latents(Context& ctx, const LatentState& s, const Entries& e, Tensor dx, Tensor centred, Tensor dl0,
                           Tensor db, Tensor fired, Tensor pull, Tensor rates, Tensor clock, float bandwidth,
                           LatentUpdateOptions o) {
  const char* op = "update_listed_latents";
  check_state(op, s, rates, clock);
  const int64_t latents = s.p.latents(), d = s.p.width(), batch = e.batch();
  CHECKF(e.latents() == latents, "{}: entries of {} latents for W_enc {}", op, e.latents(), s.p.W_enc);
  CHECKF(dx.is({batch, d}) && centred.is({batch, d}) && centred.dtype == dx.dtype,
         "{}: dx {} and centred {} must be ({}, {}) of one dtype", op, dx, centred, batch, d);
  CHECKF(dl0.is({batch}) && dl0.dtype == DType::kF32, "{}: dl0 {} must be f32[{}]", op, dl0, batch);
  CHECKF(db.is({latents}) && db.dtype == DType::kF32, "{}: db {} must be f32[{}]", op, db, latents);
  CHECKF(fired.is({latents}) && fired.dtype == DType::kI32, "{}: fired {} must be i32[{}]", op, fired, latents);
  CHECKF(pull.is({d}) && pull.dtype == DType::kF32, "{}: pull {} must be f32[{}]", op, pull, d);
  CHECKF(bandwidth > 0, "{}: bandwidth {} must be positive", op, bandwidth);
  if (s.p.W_enc.size() == 0) return;
  GSAE_DISPATCH(ctx.device(),
                update_listed_latents(ctx, s, e, dx, centred, dl0, db, fired, pull, rates, clock, bandwidth, o));
}

namespace {

struct Adam {
  float decay, fresh, unbias, grad_scale, epsilon;

  void operator()(float& p, float& v, float g, float rate) const {
    g *= grad_scale;
    v = decay * v + fresh * g * g;
    p -= rate * g / (std::sqrt(v * unbias) + epsilon);
  }
};

// What one latent does with its gradients, wherever they come from.
class LatentStep {
 public:
  LatentStep(const LatentState& s, Tensor rates, Tensor clock, LatentUpdateOptions o)
      : s_(s),
        d_(s.p.width()),
        now_(*clock.data<int64_t>()),
        rate_(rates.data<float>()[kLearningRate]),
        beta2_(rates.data<float>()[kBeta2]),
        unbias_(rates.data<float>()[kUnbias]),
        grad_scale_(rates.data<float>()[kGradScale]),
        options_(o) {}

  //   g_enc, g_dec (d)
  void operator()(int64_t i, const float* g_enc, const float* g_dec, float g_b, float g_theta) const {
    int64_t& stamp = s_.stamp.data<int64_t>()[i];
    const float decay = now_ - stamp == 1 ? beta2_ : static_cast<float>(std::pow(double(beta2_), double(now_ - stamp)));
    const Adam adam{decay, 1 - beta2_, unbias_, grad_scale_, options_.epsilon};
    encoder_row(i, g_enc, adam);
    decoder_row(i, g_dec, adam);
    adam(s_.p.b_enc.data<float>()[i], s_.v.b_enc.data<float>()[i], g_b, rate_);
    float& theta = s_.p.threshold.data<float>()[i];
    adam(theta, s_.v.threshold.data<float>()[i], g_theta, rate_ * options_.threshold_rate);
    theta = std::max(theta, 0.0f);  // in this order NaN stays NaN
    stamp = now_;
  }

 private:
  static constexpr int64_t kRun = 512;  // squares that f32 adds up one by one: within what unit norm allows

  void encoder_row(int64_t i, const float* g, const Adam adam) const {
    const int64_t d = d_;
    const float rate = rate_;
    float *w = s_.p.W_enc.data<float>() + i * d, *v = s_.v.W_enc.data<float>() + i * d;
#pragma omp simd
    for (int64_t c = 0; c < d; ++c) adam(w[c], v[c], g[c], rate);
    if (s_.W_enc16) gsae::convert(s_.W_enc16.data<BF16>() + i * d, w, d);
  }

  void decoder_row(int64_t i, const float* g, const Adam adam) const {
    const int64_t d = d_;
    const float rate = rate_ * options_.decoder_rate;
    float *w = s_.p.W_dec.data<float>() + i * d, *v = s_.v.W_dec.data<float>() + i * d;
    float along = 0;
#pragma omp simd reduction(+ : along)
    for (int64_t c = 0; c < d; ++c) along += g[c] * w[c];
    double square = 0;
    for (int64_t begin = 0; begin < d; begin += kRun) {
      const int64_t end = std::min(d, begin + kRun);
      float run = 0;
#pragma omp simd reduction(+ : run)
      for (int64_t c = begin; c < end; ++c) {
        adam(w[c], v[c], g[c] - along * w[c], rate);
        run += w[c] * w[c];
      }
      square += double(run);
    }
    const float inverse = square == 0 ? 1 : static_cast<float>(1 / std::sqrt(square));
#pragma omp simd
    for (int64_t c = 0; c < d; ++c) w[c] *= inverse;
    if (s_.W_dec16) gsae::convert(s_.W_dec16.data<BF16>() + i * d, w, d);
  }

  LatentState s_;
  int64_t d_, now_;
  float rate_, beta2_, unbias_, grad_scale_;
  LatentUpdateOptions options_;
};

}  // namespace

void cpu::update_latents(Context&, const LatentState& s, const LatentTensors& g, Tensor rates, Tensor clock,
                         LatentUpdateOptions o) {
  const LatentStep step(s, rates, clock, o);
  const int64_t d = s.p.width();
  const float *g_enc = g.W_enc.data<float>(), *g_dec = g.W_dec.data<float>();
  const float *g_b = g.b_enc.data<float>(), *g_theta = g.threshold.data<float>();
  parallel_for(s.p.latents(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) step(i, g_enc + i * d, g_dec + i * d, g_b[i], g_theta[i]);
  });
}

namespace {

constexpr int64_t kChunks = 256;  // of latents, at most: what threads share out among themselves
constexpr int kStage = 64;        // entries that are looked up before their rows are read

// The gradients of one latent, from its entries.
template <class T> struct Listed {
  const int32_t *begin, *row;
  const float *z, *df, *theta, *dl0;
  const T *dx, *centred;
  int64_t d;
  float half, scale;  // eps / 2, -1 / eps

  struct Elements {
    float b = 0, theta = 0;
    int32_t fired = 0;
  };
  Elements elements(int64_t i) const {
    Elements sum;
    const float t = theta[i];
    for (int32_t k = begin[i]; k < begin[i + 1]; ++k) {
      if (std::fabs(z[k] - t) < half) sum.theta += t * df[k] + dl0[row[k]];
      if (z[k] <= t) continue;  // NaN is on, and shows
      sum.b += df[k];
      ++sum.fired;
    }
    sum.theta *= scale;
    return sum;
  }

  //   g_enc, g_dec (d)
  void rows(float* g_enc, float* g_dec, int64_t i) const {
    std::fill_n(g_enc, d, 0.0f);
    std::fill_n(g_dec, d, 0.0f);
    const T *x[kStage], *g[kStage];
    float dz[kStage], f[kStage];
    const float t = theta[i];
    for (int32_t k = begin[i]; k < begin[i + 1];) {
      int count = 0;
      for (; k < begin[i + 1] && count < kStage; ++k) {
        if (z[k] <= t) continue;
        T narrow[2];
        store(narrow, z[k]);
        store(narrow + 1, df[k]);
        f[count] = to_float(narrow[0]), dz[count] = to_float(narrow[1]);
        g[count] = dx + row[k] * d, x[count] = centred + row[k] * d;
        ++count;
      }
      add_rows(g_dec, f, g, count, d);
      add_rows(g_enc, dz, x, count, d);
    }
  }
};

}  // namespace

void cpu::update_listed_latents(Context& ctx, const LatentState& s, const Entries& e, Tensor dx, Tensor centred,
                                Tensor dl0, Tensor db, Tensor fired, Tensor pull, Tensor rates, Tensor clock,
                                float bandwidth, LatentUpdateOptions o) {
  const LatentStep step(s, rates, clock, o);
  const int64_t latents = s.p.latents(), d = s.p.width();
  // a partial sum of pull for each chunk of latents, two rows of gradients for each thread
  const auto room = static_cast<int64_t>(Context::kWorkspaceBytes / sizeof(float)) / d - 2 * omp_get_max_threads();
  CHECK(room > 0, "update_listed_latents: rows are too long for the workspace");
  const int64_t most = std::min(kChunks, room), chunk = (latents + most - 1) / most,
                chunks = (latents + chunk - 1) / chunk;
  auto* partial = reinterpret_cast<float*>(ctx.cpu().workspace.data());
  float *gradients = partial + chunks * d, *dbs = db.data<float>();
  const float* W_enc = s.p.W_enc.data<float>();
  int32_t* counts = fired.data<int32_t>();
  dispatch_float(dx.dtype, [&]<class T>() {
    const Listed<T> listed{.begin = e.begin.data<int32_t>(),
                           .row = e.row.data<int32_t>(),
                           .z = e.z.data<float>(),
                           .df = e.df.data<float>(),
                           .theta = s.p.threshold.data<float>(),
                           .dl0 = dl0.data<float>(),
                           .dx = dx.data<T>(),
                           .centred = centred.data<T>(),
                           .d = d,
                           .half = bandwidth / 2,
                           .scale = -1 / bandwidth};
    // A latent costs as much as it has entries, so whoever is free takes the next chunk.
#pragma omp parallel for schedule(dynamic)
    for (int64_t k = 0; k < chunks; ++k) {
      float *sum = partial + k * d, *g_enc = gradients + omp_get_thread_num() * 2 * d, *g_dec = g_enc + d;
      std::fill_n(sum, d, 0.0f);
      for (int64_t i = k * chunk; i < std::min(latents, (k + 1) * chunk); ++i) {
        counts[i] = 0;
        if (listed.begin[i] == listed.begin[i + 1]) continue;
        const auto elements = listed.elements(i);
        counts[i] = elements.fired;
        dbs[i] = elements.b;
        const float* row = W_enc + i * d;
        add_rows(sum, &elements.b, &row, 1, d);
        listed.rows(g_enc, g_dec, i);
        step(i, g_enc, g_dec, elements.b, elements.theta);
      }
    }
  });
  add_partials(pull.data<float>(), partial, chunks, d, d);
}

}  // namespace gsae
