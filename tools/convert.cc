#include "tools/convert.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "io/hub.h"
#include "sae/unit_decoder.h"
#include "tools/console.h"
#include "tools/locate_sae.h"
#include "tools/progress.h"

namespace gsae {

namespace fs = std::filesystem;

namespace {

void refuse_what_is_there(const std::string& out) {
  std::error_code error;
  const fs::file_status status = fs::status(out, error);
  if (status.type() == fs::file_type::not_found) return;
  if (error) throw Error(fmt::format("--out {}: {}", out, error.message()));
  if (status.type() != fs::file_type::directory) throw Error(fmt::format("--out {}: is a file; give a folder", out));
  const fs::directory_iterator entries(out, error);
  if (error) throw Error(fmt::format("--out {}: cannot be read: {}", out, error.message()));
  if (entries != fs::directory_iterator())
    throw Error(fmt::format("--out {}: is not empty (there is {}); choose a new folder", out,
                            entries->path().filename().string()));
}

// Below FROM: the folder of its parameters, and the file's own name where that is what tells several in one folder
// apart.
std::string below(const SaeFile& sae, const std::string& from) {
  const fs::path parameters = parameters_file({sae.path, sae.format});
  const bool one_of_many = saes_in(parameters.parent_path().string(), sae.format).size() > 1;
  const fs::path own = one_of_many ? parameters.parent_path() / parameters.stem() : parameters.parent_path();
  return own.lexically_relative(from).string();
}

// The folder of each. An Error if two would be one.
std::vector<std::string> targets(const std::vector<SaeFile>& saes, const Conversion& c) {
  if (saes.size() == 1) return {c.out};
  std::vector<std::string> dirs;
  std::map<std::string, std::string> taken;
  for (const SaeFile& sae : saes) {
    dirs.push_back((fs::path(c.out) / below(sae, c.from)).lexically_normal().string());
    if (const auto [other, is_new] = taken.emplace(dirs.back(), sae.path); !is_new)
      throw Error(fmt::format("{} and {} would both be written to {}; convert them one at a time", other->second,
                              sae.path, dirs.back()));
  }
  return dirs;
}

// What its files say, and what was given.
SaeDescription describe(const SaeFile& sae, const Conversion& c) {
  SaeDescription s = describe_sae(sae);
  s.location = located(sae, c.layer, c.site);
  if (!c.model.empty()) s.location.model = c.model;
  else if (c.format != kOurFormat) s.location.model = public_name(s.location.model);  // others have no such folder
  return s;
}

// Folders that were made for it are removed again, the innermost first.
class NewFolder {
 public:
  explicit NewFolder(const std::string& path) {
    std::error_code ignored;
    for (fs::path p = path; !p.empty() && !fs::exists(p, ignored); p = p.parent_path()) made_.push_back(p);
    path_ = path;
  }
  void keep() { made_.clear(), path_.clear(); }
  ~NewFolder() {
    std::error_code ignored;
    if (!path_.empty())
      for (const auto& entry : fs::directory_iterator(path_, ignored)) fs::remove(entry.path(), ignored);
    for (const fs::path& p : made_) fs::remove(p, ignored);
  }

 private:
  std::vector<fs::path> made_;
  fs::path path_;
};

void say_what_was_folded(const std::string& path, const DecoderNorms& norms, const SaeFile& sae) {
  if (norms.folded > 0)
    print(stderr,
          fmt::format("{}: {} of {} decoder rows were not of norm 1 (latent {}: {:g}); W_enc, b_enc and threshold "
                      "were scaled by each row's norm, W_dec divided by it: x_hat stays, activations are scaled\n",
                      path, norms.folded, sae.latents, norms.furthest_of, norms.furthest));
  if (norms.zero > 0)
    print(stderr, fmt::format("{}: {} of {} decoder rows are zero, and stay so\n", path, norms.zero, sae.latents));
}

}  // namespace

void convert(const Conversion& c) {
  (void)c.common.context();  // the number of threads
  const std::vector<SaeFile> saes = list_saes(c.from, c.from_format);
  refuse_what_is_there(c.out);
  const std::vector<std::string> dirs = targets(saes, c);
  Progress progress(c.common.quiet);
  for (size_t i = 0; i < saes.size(); ++i) {
    const SaeFile& file = saes[i];
    const std::string& dir = dirs[i];
    if (progress.due()) progress.show(fmt::format("writing SAE {} of {}: {}", i + 1, saes.size(), dir));
    const SaeDescription description = describe(file, c);
    const LoadedSae sae = load_sae(file);
    const DecoderNorms norms = [&] {
      try {
        return fold_decoder_norms(sae.params);
      } catch (const Error& e) {
        throw Error(fmt::format("{}: {}", file.path, e.what()));
      }
    }();
    NewFolder folder(dir);
    write_sae_folder(dir, sae.params, description, c.format);
    folder.keep();
    progress.clear();
    say_what_was_folded(file.path, norms, file);
    print(stdout, fmt::format("{} ({}, {} latents) -> {} ({})\n", file.path, file.format, file.latents, dir, c.format));
  }
}

}  // namespace gsae
