#include "tools/file_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "kernels/bf16.h"
#include "kernels/dispatch_float.h"
#include "kernels/memory.h"

namespace gsae {

namespace {

std::string tensor_name(Place p) { return fmt::format("{}.{}", name(p.site), p.layer); }

// "mlp.12" -> mlp, 12; nothing for other names
std::optional<Place> place_of(const std::string& tensor) {
  const size_t dot = tensor.rfind('.');
  Place p;
  if (dot == tensor.npos) return std::nullopt;
  const char* end = tensor.data() + tensor.size();
  const auto [stop, error] = std::from_chars(tensor.data() + dot + 1, end, p.layer);
  if (error != std::errc() || stop != end || p.layer < 0) return std::nullopt;
  try {
    p.site = parse_site(tensor.substr(0, dot));
  } catch (const Error&) {
    return std::nullopt;
  }
  return p;
}

}  // namespace

FileSource::FileSource(const std::string& path, Place place, bool insist, int64_t chunk)
    : file_(path), place_(place), chunk_(chunk) {
  choose(insist);
  const StoredTensor& t = file_.get(name_);
  if (t.dtype != "F32" && t.dtype != "BF16")
    throw Error(fmt::format("{}: {} is {}; activations must be F32 or BF16", path, name_, t.dtype));
  if (t.size() == 0) throw Error(fmt::format("{}: {} is empty", path, name_));
  rows_ = mapped_view(t);
  if (!rows_) throw Error(fmt::format("{}: {} is not aligned to its elements; write the file again", path, name_));
  chunk_ = std::min(chunk_, rows_.dim[0]);
}

void FileSource::choose(bool insist) {
  const StoredTensor* chosen = file_.find(tensor_name(place_));
  if (!chosen) chosen = file_.find("activations");
  if (!chosen) {
    for (const auto& [name, t] : file_.tensors()) {
      if (t.shape.size() != 2) continue;
      if (chosen)
        throw Error(
            fmt::format("{}: which tensor holds the activations? There is no '{}' and no 'activations', but {} "
                        "and {}; choose with --site and --layer",
                        file_.path(), tensor_name(place_), chosen->name, name));
      chosen = &t;
    }
  }
  if (!chosen || chosen->shape.size() != 2)
    throw Error(fmt::format("{}: holds no matrix of activations (rows, width); write one with gemma_sae activations",
                            file_.path()));
  name_ = chosen->name;
  const auto named = place_of(name_);
  if (!named) return;
  if (insist && name_ != tensor_name(place_))
    throw Error(fmt::format("{}: holds {}, not the {} that --site and --layer ask for", file_.path(), name_,
                            tensor_name(place_)));
  place_ = *named;
}

bool FileSource::fill(Context& ctx, ActivationBuffer& buffer) {
  if (next_ == rows_.dim[0]) next_ = 0, ++epoch_;
  const int64_t end = std::min(rows_.dim[0], next_ + chunk_);
  if (epoch_ == 0) check_finite(next_, end);
  buffer.expect(ctx, std::vector<uint8_t>(end - next_, 1));
  buffer.write(ctx, 0, on_device(ctx, rows_.rows(next_, end)));
  next_ = end;
  return true;
}

void FileSource::go_on_from(const SourcePosition& from) {
  if (from.row < 0 || from.row > rows_.dim[0] || from.epoch < 0)
    throw Error(fmt::format("{}: {} has {} rows, and the checkpoint was at row {}: it is another file", file_.path(),
                            name_, rows_.dim[0], from.row));
  next_ = from.row, epoch_ = from.epoch;
}

void FileSource::recompute(Context&, ActivationBuffer&, const RowOrigins::State&, std::span<const int32_t>) {
  throw Error(
      fmt::format("{}: a checkpoint without the buffer's rows is none of a run on saved activations", file_.path()));
}

Tensor FileSource::on_device(Context& ctx, Tensor rows) {
  if (ctx.device() == Device::kCpu) return rows;
  if (staging_.size() == 0) staging_ = Buffer(ctx.device(), rows_.rows(0, chunk_).bytes());
  Tensor staged = rows;
  staged.ptr = staging_.data();
  staged.device = ctx.device();
  copy(ctx, staged, rows);
  return staged;
}

void FileSource::check_finite(int64_t begin, int64_t end) const {
  const int64_t d = width();
  dispatch_float(rows_.dtype, [&]<class T>() {
    for (int64_t r = begin; r < end; ++r) {
      const T* row = rows_.data<T>() + r * d;
      float sum = 0;  // of zeros, unless something is not finite
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < d; ++c) sum += 0 * to_float(row[c]);
      if (sum != 0) throw Error(fmt::format("{}: row {} of {} holds NaN or infinity", file_.path(), r, name_));
    }
  });
}

}  // namespace gsae
