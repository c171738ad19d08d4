#include "io/hub.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <optional>

#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;

// The environment that hub.h names, as given and nothing else; as it was at the end of the test.
class Hub : public testing::Test {
 protected:
  Hub() {
    for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME", "GSAE_DEMO"}) {
      if (const char* value = std::getenv(name)) old_[name] = value;
      else old_[name] = std::nullopt;
      unsetenv(name);
    }
    setenv("HOME", (folder_ / "home").c_str(), 1);
  }
  ~Hub() override {
    for (const auto& [name, value] : old_) value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
  }
  // A cache under `hub` with one snapshot that refs/REF names.
  std::string add(const std::string& hub, const std::string& commit = "abc123", const std::string& ref = "main") {
    const fs::path model = fs::path(hub) / "models--google--gemma-2-2b", snapshot = model / "snapshots" / commit;
    fs::create_directories(snapshot);
    fs::create_directories((model / "refs" / ref).parent_path());
    write_bytes((snapshot / "config.json").string(), "{}");
    write_bytes((model / "refs" / ref).string(), commit);
    return snapshot.string();
  }

  TempFolder folder_;
  std::map<std::string, std::optional<std::string>> old_;
};

constexpr const char* kId = "google/gemma-2-2b";

TEST_F(Hub, CacheByPrecedence) {
  const std::string home = add(folder_ / "home/.cache/huggingface/hub");
  EXPECT_EQ(find_model(kId), home);
  const std::string xdg = add(folder_ / "xdg/huggingface/hub");
  setenv("XDG_CACHE_HOME", (folder_ / "xdg").c_str(), 1);
  EXPECT_EQ(find_model(kId), xdg);
  const std::string hf = add(folder_ / "home/hf/hub");
  setenv("HF_HOME", "~/hf", 1);
  EXPECT_EQ(find_model(kId), hf);
  const std::string cache = add(folder_ / "cache");
  setenv("HF_HUB_CACHE", (folder_ / "cache").c_str(), 1);
  EXPECT_EQ(find_model(kId), cache);
  setenv("HF_HUB_CACHE", "", 1);  // empty: as if it were not set
  EXPECT_EQ(find_model(kId), hf);
}

TEST_F(Hub, Revisions) {
  setenv("HF_HUB_CACHE", (folder_ / "hub").c_str(), 1);
  const std::string main = add(folder_ / "hub", "aaa", "main"), branch = add(folder_ / "hub", "bbb", "pr/1");
  EXPECT_EQ(find_model(kId), main);
  EXPECT_EQ(find_model("google/gemma-2-2b@main"), main);
  EXPECT_EQ(find_model("google/gemma-2-2b@pr/1"), branch);
  EXPECT_EQ(find_model("google/gemma-2-2b@bbb"), branch);  // a commit
  EXPECT_ERROR(find_model("google/gemma-2-2b@ccc"), "google/gemma-2-2b@aaa, google/gemma-2-2b@bbb");
  write_bytes(folder_ / "hub/models--google--gemma-2-2b/refs/main", "aaa\n");
  EXPECT_EQ(find_model(kId), main);
}

TEST_F(Hub, NotThere) {
  for (const char* part :
       {"home/.cache/huggingface/hub/models--google--gemma-2-2b", "hf download google/gemma-2-2b", "--model demo"})
    EXPECT_ERROR(find_model(kId), part);
  const fs::path snapshot = add(folder_ / "home/.cache/huggingface/hub");
  fs::remove(snapshot / "config.json");
  EXPECT_ERROR(find_model(kId), "not complete");
  fs::remove_all(snapshot);
  EXPECT_ERROR(find_model("google/gemma-2-2b@v1"), "hf download google/gemma-2-2b --revision v1");
}

TEST_F(Hub, NothingLeadsOutOfTheCache) {
  add(folder_ / "home/.cache/huggingface/hub");
  for (const char* model : {"", "../x", "a/b/c", "google/..", "google/gemma 2", "google//gemma", "/absent/folder",
                            "google/gemma-2-2b@", "google/gemma-2-2b@../../x", "google/gemma-2-2b@/x"})
    EXPECT_ERROR(find_model(model), "not a Hugging Face id");
  write_bytes(folder_ / "home/.cache/huggingface/hub/models--google--gemma-2-2b/refs/main", "../../../..");
  EXPECT_ERROR(find_model(kId), "names no snapshot");
  write_bytes(folder_ / "home/.cache/huggingface/hub/models--google--gemma-2-2b/refs/main", "");
  EXPECT_ERROR(find_model(kId), "names no snapshot");
}

TEST_F(Hub, Folders) {
  EXPECT_EQ(find_model(folder_.path()), folder_.path());
  fs::create_directories(folder_ / "home/m");
  EXPECT_EQ(find_model("~/m"), folder_ / "home/m");
  write_bytes(folder_ / "model.safetensors", "");
  EXPECT_ERROR(find_model(folder_ / "model.safetensors"), "config.json");
}

TEST_F(Hub, PublicNames) {
  for (const char* id : {"", "demo", kId, "google/gemma-2-2b@v1"}) EXPECT_EQ(public_name(id), id);
  EXPECT_EQ(public_name(add(folder_ / "cache")), kId);
  fs::create_directories(folder_ / "home/models/gemma-2-9b/it");
  for (const char* path : {"~/models/gemma-2-9b", "~/models/gemma-2-9b/", "~/models/gemma-2-9b/it/.."})
    EXPECT_EQ(public_name(path), "gemma-2-9b");
}

TEST_F(Hub, Demo) {
  EXPECT_TRUE(fs::exists(find_model("demo") + "/config.json"));
  EXPECT_TRUE(fs::equivalent(demo_folder(), demo_data()));
  fs::create_directories(folder_ / "other/model");
  write_bytes(folder_ / "other/model/config.json", "{}");
  setenv("GSAE_DEMO", (folder_ / "other").c_str(), 1);
  EXPECT_EQ(find_model("demo"), folder_ / "other/model");
  setenv("GSAE_DEMO", (folder_ / "absent").c_str(), 1);
  EXPECT_ERROR(find_model("demo"), "GSAE_DEMO");
}

}  // namespace
}  // namespace gsae::test
