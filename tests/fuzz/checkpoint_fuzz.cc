// tools/checkpoint and tools/training_state: manifest.json, record.json and tensors.safetensors of a checkpoint, in
// this order. Where the manifest is empty, one is made whose checksums are right, so that what lies behind them is
// reached.
#include <fmt/format.h>
#include <xxhash.h>

#include <nlohmann/json.hpp>

#include "sae/row_order.h"
#include "tests/fuzz/fuzz.h"
#include "tools/checkpoint.h"
#include "tools/training_state.h"

namespace {

std::string manifest_of(std::string_view record, const std::string& tensors) {
  const auto sum = [](const void* data, size_t bytes) { return fmt::format("{:016x}", XXH3_64bits(data, bytes)); };
  nlohmann::ordered_json hashes = nlohmann::ordered_json::object();
  gsae::test::may_refuse([&] {
    const gsae::SafetensorsFile file(tensors);
    for (const auto& [name, t] : file.tensors()) hashes[name] = {{"bytes", t.bytes}, {"xxh3", sum(t.data, t.bytes)}};
  });
  return nlohmann::ordered_json{
      {"format", gsae::kCheckpointFormat},
      {"record.json", {{"bytes", record.size()}, {"xxh3", sum(record.data(), record.size())}}},
      {"tensors", hashes}}
      .dump();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  static const std::string folder = test::fuzz_folder() / "step_3";
  static Context ctx(Device::kCpu);
  std::filesystem::create_directory(folder);
  const std::vector<std::string_view> parts = test::parts_of(test::text_of(data, size), 3);
  if (parts.size() < 3) return 0;
  const std::string tensors = folder + "/tensors.safetensors";
  test::write_bytes(tensors, parts[2]);
  test::write_bytes(folder + "/record.json", parts[1]);
  test::write_bytes(folder + "/manifest.json", parts[0].empty() ? manifest_of(parts[1], tensors) : parts[0]);
  test::may_refuse([&] {
    const Checkpoint checkpoint(folder);
    test::may_refuse([&] {
      TrainingState s = training_state(checkpoint.record(), folder);
      check_fits(s, 2, folder);
      RowOrder order(s.passes[0].buffer_rows % 1000 + 1, 0, true);
      order.restore({s.order.draws, checkpoint.integers("buffer/held"), checkpoint.integers("buffer/free")});
      std::vector<int32_t> index;
      order.draw(order.held(), index);
    });
    float values[6] = {};
    const Tensor t = view(values, {2, 3});
    test::may_refuse([&] { checkpoint.load(ctx, "res.1/W_enc", t); });
  });
  return 0;
}
