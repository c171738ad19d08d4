#include "io/hub.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "io/output_file.h"
#include "kernels/check.h"

namespace gsae {
namespace {

namespace fs = std::filesystem;

bool is_file(const fs::path& p) {
  std::error_code ignored;
  return fs::is_regular_file(p, ignored);
}
bool is_folder(const fs::path& p) {
  std::error_code ignored;
  return fs::is_directory(p, ignored);
}

std::string environment(const char* name) {  // "" if not set
  const char* value = std::getenv(name);
  return value ? value : "";
}

fs::path expand_home(const std::string& path) {
  if (path == "~" || path.starts_with("~/")) return environment("HOME") + path.substr(1);
  return path;
}

// As huggingface_hub's constants.py finds it.
fs::path hub_cache() {
  if (const std::string p = environment("HF_HUB_CACHE"); !p.empty()) return expand_home(p);
  if (const std::string p = environment("HF_HOME"); !p.empty()) return expand_home(p) / "hub";
  if (const std::string p = environment("XDG_CACHE_HOME"); !p.empty()) return expand_home(p) / "huggingface/hub";
  return expand_home("~/.cache/huggingface/hub");
}

// Letters, digits and ._- in non-empty parts between slashes, none of them . or .. : what comes from
// a command line or a refs file must not lead out of the cache.
bool is_plain(const std::string& text, int max_parts) {
  int parts = 0;
  for (size_t begin = 0; begin <= text.size(); ++parts) {
    const size_t end = std::min(text.find('/', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    if (part.empty() || part == "." || part == ".." || part.size() > 200) return false;
    if (!std::all_of(part.begin(), part.end(), [](char c) {
          return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                 c == '-';
        }))
      return false;
    begin = end + 1;
  }
  return parts <= max_parts;
}

struct HubId {
  std::string name, revision;  // "google/gemma-2-2b", "main"
  std::string download() const {
    return fmt::format("hf download {}{}", name, revision == "main" ? "" : " --revision " + revision);
  }
};

[[noreturn]] void not_there(const HubId& id, const fs::path& where, const std::string& what) {
  throw Error(
      fmt::format("{}: {} {}; download it with `{}` (Gemma asks you to accept its licence on its page and to "
                  "`hf auth login` first), give its folder with --model DIR, or try --model demo",
                  id.name, what, where.string(), id.download()));
}

std::string find_snapshot(const HubId& id) {
  std::string folder = "models--" + id.name;
  if (const size_t slash = folder.find('/'); slash != folder.npos) folder.replace(slash, 1, "--");
  const fs::path cached = hub_cache() / folder;
  if (!is_folder(cached)) not_there(id, cached, "not in the Hugging Face cache: there is no");

  std::string commit = id.revision;  // itself, if no branch or tag has this name
  if (const fs::path ref = cached / "refs" / id.revision; is_file(ref)) {
    commit = read_file(ref.string(), 1000);
    while (!commit.empty() && (commit.back() == '\n' || commit.back() == '\r' || commit.back() == ' '))
      commit.pop_back();
    if (!is_plain(commit, 1)) throw Error(fmt::format("{}: names no snapshot; {}", ref.string(), id.download()));
  }
  const fs::path snapshot = cached / "snapshots" / commit;
  if (is_file(snapshot / "config.json")) return snapshot.string();
  if (is_folder(snapshot)) not_there(id, snapshot, "its download is not complete: no config.json in");

  std::vector<std::string> others;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(cached / "snapshots", ignored))
    if (is_file(entry.path() / "config.json")) others.push_back(id.name + "@" + entry.path().filename().string());
  if (others.empty()) not_there(id, cached, fmt::format("revision {} is not in", id.revision));
  std::sort(others.begin(), others.end());
  throw Error(fmt::format("{}: revision {} is not in {}; there is {}, or download it with `{}`", id.name, id.revision,
                          cached.string(), fmt::join(others, ", "), id.download()));
}

}  // namespace

std::string find_model(const std::string& model) {
  if (model == "demo") return (fs::path(demo_folder()) / "model").string();
  const fs::path folder = expand_home(model);
  if (is_folder(folder)) return folder.string();
  if (is_file(folder)) throw Error(fmt::format("--model {}: a file; give the folder that holds config.json", model));

  const size_t at = model.find('@');
  const HubId id{model.substr(0, at), at == model.npos ? "main" : model.substr(at + 1)};
  if (!is_plain(id.name, 2) || !is_plain(id.revision, 8))
    throw Error(fmt::format("--model {}: no such folder, and not a Hugging Face id such as google/gemma-2-2b", model));
  return find_snapshot(id);
}

std::string public_name(const std::string& model) {
  if (model.empty() || !is_folder(expand_home(model))) return model;
  std::error_code error;
  fs::path folder = fs::absolute(expand_home(model), error).lexically_normal();
  if (folder.filename().empty()) folder = folder.parent_path();
  constexpr std::string_view kModels = "models--";
  for (fs::path p = folder; p.has_relative_path(); p = p.parent_path()) {
    std::string id = p.filename().string();
    if (!id.starts_with(kModels)) continue;
    id.erase(0, kModels.size());
    if (const size_t dashes = id.find("--"); dashes != id.npos) id.replace(dashes, 2, "/");
    return id;
  }
  return folder.filename().string();
}

std::string demo_folder() {
  const auto complete = [](const fs::path& p) { return is_file(p / "model/config.json"); };
  if (const std::string given = environment("GSAE_DEMO"); !given.empty()) {
    if (complete(given)) return given;
    throw Error(fmt::format("GSAE_DEMO={}: no model/config.json in it; unset it to use the bundled demo", given));
  }
  std::error_code ignored;
  const fs::path beside = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  std::vector<std::string> searched;
  for (const fs::path& p : {beside / "demo", beside / "share/gemma_sae/demo", beside / "../share/gemma_sae/demo",
                            beside / "tools/demo", fs::path(GSAE_SOURCE_DIR) / "tools/demo"}) {
    if (complete(p)) return p.lexically_normal().string();
    searched.push_back(p.lexically_normal().string());
  }
  throw Error(fmt::format("the demo model is in none of {}; set GSAE_DEMO to tools/demo of the source tree",
                          fmt::join(searched, ", ")));
}

}  // namespace gsae
