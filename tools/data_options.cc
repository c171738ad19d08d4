#include "tools/data_options.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <thread>

#include "io/hub.h"
#include "tools/console.h"

namespace gsae {

void DataOptions::add(CLI::App& command) {
  command.add_option("--model", model, "folder, Hugging Face id in the local cache, or demo")->capture_default_str();
  command.add_option("--dtype", dtype, "of the model's matrix products: bf16 or f32")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command.add_option("--data", data,
                     "text (.txt .jsonl, also .zst .gz, -) or tokens (.npy .bin .safetensors); "
                     "default: the bundled corpus");
  command.add_option("--context", context, "tokens per context; 0: 1024, 256 for the demo model")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--text-field", text_field, "of a jsonl object")->capture_default_str();
  command.add_option("--token-dtype", token_dtype, "of .bin files: uint16 or uint32")
      ->check(CLI::IsMember({"uint16", "uint32"}))
      ->capture_default_str();
  command.add_option("--eval-fraction", eval_fraction, "of the documents, held out of training for evaluation")
      ->check(number_range(0, 0.99))
      ->capture_default_str();
  command.add_flag("--skip-bad", skip_bad, "count and report malformed lines instead of stopping");
}

DType DataOptions::compute() const { return dtype == "f32" ? DType::kF32 : DType::kBF16; }

int64_t DataOptions::context_for(const GemmaConfig& config) const {
  if (context == 0) return std::min<int64_t>(model == "demo" ? 256 : 1024, config.max_positions);
  if (context < 2 || context > config.max_positions)
    throw UsageError(
        fmt::format("--context {}: {} takes contexts of 2 to {} tokens", context, model, config.max_positions));
  return context;
}

TokenStreamOptions DataOptions::stream(const std::string& dir, const GemmaConfig& config,
                                       const CommonOptions& common) const {
  TokenStreamOptions s;
  s.files = data;
  if (data.empty()) {
    s.files = {demo_folder() + "/corpus.jsonl.zst"};
    if (!common.quiet)
      print(stderr,
            fmt::format("no --data: using the bundled corpus ({}); real runs pass --data FILE...\n", s.files[0]));
  }
  s.tokenizer = dir + "/tokenizer.model";
  s.text_field = text_field;
  s.token_dtype = token_dtype;
  s.skip_bad = skip_bad;
  s.context = context_for(config);
  s.bos = config.bos, s.eos = config.eos, s.pad = config.pad;
  s.vocab_size = config.vocab;
  s.eval_fraction = eval_fraction;
  s.seed = common.seed;
  // Tokenising is some percent of the work: a few threads keep up, and leave the processors to the model.
  const int processors = common.threads > 0 ? common.threads : static_cast<int>(std::thread::hardware_concurrency());
  s.threads = std::clamp(processors / 4, 1, 8);
  return s;
}

namespace {

constexpr int64_t kMostLayers = 4096;  // of any model: a range that goes on forever is a slip of the hand

bool parse_integer(std::string_view text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

template <class T> void append_once(std::vector<T>& list, T value) {
  if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
}

// Empty: the text is none.
std::vector<int64_t> layers_of(const std::string& text) {
  std::vector<int64_t> layers;
  for (const std::string& element : split_list(text)) {
    const std::string_view part = element;
    const size_t dash = part.find('-', 1);
    int64_t first = 0, last = 0;
    const bool valid = parse_integer(part.substr(0, dash), first) &&
                       parse_integer(dash == part.npos ? part : part.substr(dash + 1), last) && 0 <= first &&
                       first <= last && last < kMostLayers;
    if (!valid) return {};
    for (int64_t l = first; l <= last; ++l) append_once(layers, l);
  }
  return layers;
}

}  // namespace

std::vector<int64_t> parse_layers(const std::string& text) {
  std::vector<int64_t> layers = layers_of(text);
  if (layers.empty()) throw UsageError(fmt::format("--layer {}: must be layers, such as 20, 0-25 or 3,7,10-12", text));
  return layers;
}

std::vector<int64_t> parse_layers(const std::string& text, const GemmaConfig& config) {
  std::vector<int64_t> layers = layers_of(text);
  if (layers.empty() || *std::max_element(layers.begin(), layers.end()) >= config.layers)
    throw UsageError(fmt::format("--layer {}: must be layers of this model, 0 to {}, such as {} or 0-{}", text,
                                 config.layers - 1, config.layers / 2, config.layers - 1));
  return layers;
}

std::vector<Site> parse_sites(const std::string& text) {
  std::vector<Site> sites;
  for (const std::string& part : split_list(text)) {
    try {
      append_once(sites, parse_site(part));
    } catch (const Error& e) {
      throw UsageError(fmt::format("--site {}: {}", text, e.what()));
    }
  }
  return sites;
}

}  // namespace gsae
