#include "model/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "model/gemma2.h"
#include "tests/files.h"
#include "tests/harness.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

const std::string kF32 = test_data("forward/gqa2_window8");
const std::string kBF16 = test_data("forward/like_2b_bf16");

// A checkpoint's folder that a test changes before it is written.
class WeightsTest : public testing::Test {
 protected:
  explicit WeightsTest(Device device = Device::kCpu) : ctx_(available(device) ? device : Device::kCpu) {}

  struct Stored {
    std::string name, dtype;
    std::vector<int64_t> shape;
    std::string bytes;
  };

  void take(const std::string& dir) {
    const SafetensorsFile file(dir + "/model.safetensors");
    for (const auto& [name, t] : file.tensors())
      tensors_.push_back({name, t.dtype, t.shape, std::string(reinterpret_cast<const char*>(t.data), t.bytes)});
    write_bytes(folder_ / "config.json", read_bytes(dir + "/config.json"));
    config_ = read_config(dir);
  }
  Stored& at(const std::string& name) {
    return *std::find_if(tensors_.begin(), tensors_.end(), [&](const Stored& t) { return t.name == name; });
  }
  void drop(const std::string& name) {
    std::erase_if(tensors_, [&](const Stored& t) { return t.name == name; });
  }
  void write_file(const std::string& file, const std::vector<Stored>& tensors) {
    std::vector<SafetensorsWriter::Declared> declared;
    for (const Stored& t : tensors) declared.push_back({t.name, t.dtype, t.shape});
    SafetensorsWriter writer(folder_ / file, declared);
    for (const Stored& t : tensors) writer.append(t.name, t.bytes.data(), t.bytes.size());
    writer.close();
  }
  void write_single() { write_file("model.safetensors", tensors_); }
  // Every third tensor to each of three shards, and the index that says so.
  void write_shards() {
    std::string map;
    for (size_t shard = 0; shard < 3; ++shard) {
      const std::string file = fmt::format("model-{:05}-of-00003.safetensors", shard + 1);
      std::vector<Stored> part;
      for (size_t i = shard; i < tensors_.size(); i += 3) {
        part.push_back(tensors_[i]);
        map += fmt::format("{}\"{}\": \"{}\"", map.empty() ? "" : ", ", tensors_[i].name, file);
      }
      write_file(file, part);
    }
    write_index("{" + map + "}");
  }
  void write_index(const std::string& map) {
    write_bytes(folder_ / "model.safetensors.index.json", R"({"metadata": {}, "weight_map": )" + map + "}");
  }

  void load() { GemmaWeights(ctx_, folder_.path(), config_, DType::kF32); }

  // Logits of a few tokens: what any difference in the weights shows up in.
  std::vector<float> logits(const std::string& dir, DType compute) {
    const Gemma2 gemma(ctx_, dir, compute);
    Arena plan;
    Gemma2::Activations(plan, gemma, 1, 5);
    const Buffer memory(ctx_.device(), plan.used());
    Arena arena(memory);
    Gemma2::Activations acts(arena, gemma, 1, 5);
    const int64_t vocab = gemma.config().vocab;
    Guarded tokens(ctx_, DType::kI32, {1, 5}), out(ctx_, DType::kF32, {5, vocab});
    upload(ctx_, tokens, std::vector<int32_t>{2, 17, 99, 5, 33});
    gemma.forward(ctx_, acts, tokens, {}, {}, out);
    return out.read();
  }

  Context ctx_;
  TempFolder folder_;
  GemmaConfig config_;
  std::vector<Stored> tensors_;
};

// What each device has its own way of doing.
struct WeightsOn : WeightsTest, testing::WithParamInterface<Device> {
  WeightsOn() : WeightsTest(GetParam()) {}
  void SetUp() override { require(GetParam()); }
};
ON_DEVICES(WeightsOn);
struct WeightsOnGpu : WeightsOn {};
ON_GPUS(WeightsOnGpu);

TEST_F(WeightsTest, AreUsedWhereTheyLie) {
  for (const std::string& dir : {kF32, kBF16}) {
    const GemmaWeights w(ctx_, dir, read_config(dir), DType::kF32);
    EXPECT_EQ(w.owned_bytes, 0u);
    size_t total = 0;
    const SafetensorsFile file(dir + "/model.safetensors");
    for (const auto& [name, t] : file.tensors()) total += t.bytes;
    EXPECT_EQ(w.mapped_bytes, total);
    const StoredTensor& stored = file.get("model.layers.1.mlp.down_proj.weight");
    EXPECT_EQ(w.layers[1].down.bytes(), stored.bytes);
    EXPECT_EQ(std::memcmp(w.layers[1].down.ptr, stored.data, stored.bytes), 0);
  }
}

TEST_P(WeightsOn, ShardsAreTheSingleFile) {
  for (const std::string& dir : {kF32, kBF16}) {
    tensors_.clear();
    take(dir);
    write_shards();
    for (const DType compute : {DType::kF32, DType::kBF16})
      EXPECT_EQ(logits(folder_.path(), compute), logits(dir, compute));
  }
}

// One byte more in front of the data: no element lies where its type may.
TEST_P(WeightsOn, UnalignedTensorsAreCopied) {
  for (const std::string& dir : {kF32, kBF16}) {
    tensors_.clear();
    take(dir);
    std::string bytes = read_bytes(dir + "/model.safetensors");
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    bytes.insert(8 + header, " ");
    ++header;
    std::memcpy(bytes.data(), &header, 8);
    write_bytes(folder_ / "model.safetensors", bytes);
    const GemmaWeights w(ctx_, folder_.path(), config_, DType::kF32);
    EXPECT_EQ(w.mapped_bytes, 0u);
    EXPECT_GT(w.owned_bytes, 100000u);
    EXPECT_EQ(logits(folder_.path(), DType::kF32), logits(dir, DType::kF32));
  }
}

TEST_F(WeightsTest, F16IsWidened) {
  take(kF32);
  Stored& norm = at("model.norm.weight");
  norm.dtype = "F16";
  norm.bytes.assign(norm.bytes.size() / 2, '\0');
  for (size_t i = 0; i < norm.bytes.size(); i += 2) norm.bytes[i + 1] = '\x38';  // 0.5
  write_single();
  const GemmaWeights w(ctx_, folder_.path(), config_, DType::kF32);
  ASSERT_EQ(w.final_norm.dtype, DType::kF32);
  for (int64_t i = 0; i < config_.width; ++i) EXPECT_EQ(w.final_norm.data<float>()[i], 0.5f);
  EXPECT_EQ(w.owned_bytes, size_t(4 * config_.width));
}

// A stored tensor as the GPU has to hold it.
std::vector<float> stored_as(const StoredTensor& t, DType dtype) {
  std::vector<float> v = to_f32(t);
  if (dtype == DType::kBF16)
    for (float& x : v) x = to_float(to_bf16(x));
  return v;
}

std::vector<float> as_f32(Context& ctx, Tensor t) {
  if (t.dtype == DType::kF32) return download<float>(ctx, t);
  std::vector<float> v;
  for (const BF16 b : download<BF16>(ctx, t)) v.push_back(to_float(b));
  return v;
}

// Uploaded in the type that the model computes in, norms as f32, from every type that a file may have; q, k, v and
// gate, up as the one matrix that a product takes.
TEST_P(WeightsOnGpu, AreUploadedAndPacked) {
  for (const std::string& dir : {kF32, kBF16, std::string("f16")}) {
    tensors_.clear();
    take(dir == "f16" ? kF32 : dir);
    if (dir == "f16")  // whatever bits they are, without NaN or infinity: another exponent than 31
      for (Stored& t : tensors_) {
        std::string halves;
        for (size_t i = 0; i < t.bytes.size(); i += 4) {
          halves += t.bytes[i + 1];
          halves += static_cast<char>(t.bytes[i + 2] & 0xbf);
        }
        t.dtype = "F16", t.bytes = halves;
      }
    write_single();
    const SafetensorsFile file(folder_ / "model.safetensors");
    for (const DType compute : {DType::kF32, DType::kBF16}) {
      const GemmaWeights w(ctx_, folder_.path(), config_, compute);
      const auto expect = [&](Tensor got, const std::string& name, DType dtype) {
        EXPECT_EQ(got.device, ctx_.device()) << name;
        ASSERT_EQ(got.dtype, dtype) << name;
        EXPECT_EQ(reinterpret_cast<uintptr_t>(got.ptr) % 16, 0u) << name;
        EXPECT_EQ(as_f32(ctx_, got), stored_as(file.get(name + ".weight"), dtype)) << name;
      };
      expect(w.embedding, "model.embed_tokens", compute);
      expect(w.final_norm, "model.norm", DType::kF32);
      size_t bytes = w.embedding.bytes() + w.final_norm.bytes();
      for (size_t i = 0; i < w.layers.size(); ++i) {
        const LayerWeights& l = w.layers[i];
        const std::string layer = fmt::format("model.layers.{}.", i);
        for (const auto& [tensor, name] : {std::pair{l.q, "self_attn.q_proj"},
                                           {l.k, "self_attn.k_proj"},
                                           {l.v, "self_attn.v_proj"},
                                           {l.o, "self_attn.o_proj"},
                                           {l.gate, "mlp.gate_proj"},
                                           {l.up, "mlp.up_proj"},
                                           {l.down, "mlp.down_proj"}})
          expect(tensor, layer + name, compute), bytes += tensor.bytes();
        for (const auto& [tensor, name] : {std::pair{l.norm_in, "input_layernorm"},
                                           {l.norm_post_att, "post_attention_layernorm"},
                                           {l.norm_pre_ffw, "pre_feedforward_layernorm"},
                                           {l.norm_post_ffw, "post_feedforward_layernorm"}})
          expect(tensor, layer + name, DType::kF32), bytes += tensor.bytes();
        EXPECT_EQ(l.k.ptr, l.q.ptr + l.q.bytes());
        EXPECT_EQ(l.v.ptr, l.k.ptr + l.k.bytes());
        EXPECT_EQ(l.up.ptr, l.gate.ptr + l.gate.bytes());
      }
      EXPECT_EQ(w.mapped_bytes, 0u);
      EXPECT_GE(w.owned_bytes, bytes);
      EXPECT_LT(w.owned_bytes, bytes + 256 * (2 + 8 * w.layers.size()));  // each begins at a multiple of 256
    }
  }
}

TEST_F(WeightsTest, OtherTensorsAreIgnored) {
  take(kF32);
  tensors_.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "I64", {2}, std::string(16, '\1')});
  write_single();
  load();
}

TEST_F(WeightsTest, ATiedHeadMayBeThereTwiceButNotAnother) {
  take(kF32);
  tensors_.push_back(at("model.embed_tokens.weight"));
  tensors_.back().name = "lm_head.weight";
  write_single();
  load();
  tensors_.back().bytes[5] ^= 1;
  write_single();
  EXPECT_ERROR(load(), "lm_head.weight differs from the embedding");
}

TEST_F(WeightsTest, MissingTensor) {
  take(kF32);
  drop("model.layers.2.self_attn.k_proj.weight");
  write_single();
  EXPECT_ERROR(load(), "tensor model.layers.2.self_attn.k_proj.weight is missing");
}

TEST_F(WeightsTest, WrongShape) {
  take(kF32);
  std::swap(at("model.layers.3.mlp.up_proj.weight").shape[0], at("model.layers.3.mlp.up_proj.weight").shape[1]);
  write_single();
  EXPECT_ERROR(load(), "model.layers.3.mlp.up_proj.weight has the shape (64, 96), but config.json asks for (96, 64)");
}

TEST_F(WeightsTest, WrongDtype) {
  take(kF32);
  at("model.layers.0.mlp.up_proj.weight").dtype = "I32";
  write_single();
  EXPECT_ERROR(load(), "model.layers.0.mlp.up_proj.weight is I32: must be BF16, F32 or F16");
}

TEST_F(WeightsTest, FewerLayersThanTheConfigSays) {
  take(kF32);
  write_single();
  ++config_.layers;
  EXPECT_ERROR(load(), "tensor model.layers.4.input_layernorm.weight is missing");
}

TEST_F(WeightsTest, NoCheckpoint) {
  take(kF32);
  EXPECT_ERROR(load(), "holds neither model.safetensors nor model.safetensors.index.json");
}

TEST_F(WeightsTest, MissingShards) {
  take(kF32);
  write_shards();
  std::filesystem::remove(folder_ / "model-00001-of-00003.safetensors");
  std::filesystem::remove(folder_ / "model-00003-of-00003.safetensors");
  EXPECT_ERROR(load(), "2 of 3 shards are missing: model-00001-of-00003.safetensors, model-00003-of-00003.safetensors");
}

TEST_F(WeightsTest, TruncatedShard) {
  take(kF32);
  write_shards();
  const std::string shard = folder_ / "model-00002-of-00003.safetensors", bytes = read_bytes(shard);
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    write_bytes(shard, bytes.substr(0, size));
    EXPECT_ERROR(load(), "model-00002-of-00003.safetensors");
  }
}

TEST_F(WeightsTest, AnIndexThatLies) {
  take(kF32);
  write_shards();
  write_index(R"({"model.norm.weight": "model-00001-of-00003.safetensors"})");
  EXPECT_ERROR(load(), "tensor model.embed_tokens.weight is missing");
  write_index(R"({"model.embed_tokens.weight": "model-00003-of-00003.safetensors"})");  // it is in the first
  EXPECT_ERROR(load(), "is not there, though");
}

TEST_F(WeightsTest, AnIndexMayNotLeaveTheFolder) {
  take(kF32);
  write_single();  // what the paths lead to exists
  std::filesystem::create_directory(folder_ / "sub");
  std::filesystem::rename(folder_ / "model.safetensors", folder_ / "sub/a.safetensors");
  for (const char* path : {R"("../x/sub/a.safetensors")", R"("sub/a.safetensors")", R"("/etc/passwd")", R"("..")",
                           R"(".")", R"("")", R"("sub\\a")", R"("a\u0000b")", "7", "null", R"(["a"])"}) {
    write_index(fmt::format(R"({{"model.norm.weight": {}}})", path));
    EXPECT_ERROR(load(), "must be the name of a file in the same folder");
  }
}

TEST_F(WeightsTest, AnIndexOfAnotherForm) {
  take(kF32);
  for (const char* text : {"", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": {"a": "b")"}) {
    write_bytes(folder_ / "model.safetensors.index.json", text);
    EXPECT_ERROR(load(), "model.safetensors.index.json");
  }
}

// Found before the layer is used for the first time, not when the files are mapped.
TEST_P(WeightsOn, BrokenNumbersAreNamed) {
  const uint32_t patterns[] = {0x7fc00000, 0x7f800000, 0xff800000};  // NaN, both infinities
  int which = 0;
  for (const std::string name :
       {"model.layers.0.self_attn.q_proj.weight", "model.layers.3.mlp.down_proj.weight",
        "model.layers.1.post_feedforward_layernorm.weight", "model.embed_tokens.weight", "model.norm.weight"}) {
    tensors_.clear();
    take(kF32);
    std::string& bytes = at(name).bytes;
    std::memcpy(bytes.data() + bytes.size() - 4, &patterns[which++ % 3], 4);  // of the embedding: a token unused below
    write_single();
    EXPECT_ERROR(logits(folder_.path(), DType::kF32), name + " holds NaN or infinity");
  }
}

}  // namespace
}  // namespace gsae::test
