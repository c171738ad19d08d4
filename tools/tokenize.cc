#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <optional>
#include <thread>

#include "io/documents.h"
#include "io/encode_pipeline.h"
#include "io/hub.h"
#include "io/tokenizer.h"
#include "tools/options.h"

namespace gsae {
namespace {

struct TokenizeOptions {
  std::string model = "google/gemma-2-2b";
  std::string tokenizer;
  std::vector<std::string> data;
  std::string text_field = "text";
  bool bos = false, skip_bad = false;
};

// The documents of several files, in order.
class Files {
 public:
  Files(const TokenizeOptions& options, const StopSignal& stop) : options_(options), stop_(stop) {
    for (const std::string& path : options_.data) {
      if (data_kind(path) == DataKind::kTokens) throw Error(fmt::format("{} holds tokens already, not text", path));
      if (path != "-") open_bytes(path);  // an Error before the first line is written
    }
  }

  bool next(Item& item) {
    for (; file_ < options_.data.size(); ++file_) {
      if (!reader_)
        reader_.emplace(
            options_.data[file_],
            DocumentOptions{.text_field = options_.text_field, .skip_bad = options_.skip_bad, .stop = &stop_});
      if (reader_->next(item.text)) return true;
      if (skipped_.count == 0) skipped_.first = reader_->skipped().first;
      skipped_.count += reader_->skipped().count;
      reader_.reset();
    }
    return false;
  }
  const Skipped& skipped() const { return skipped_; }  // once next() has said false

 private:
  const TokenizeOptions& options_;
  const StopSignal& stop_;
  size_t file_ = 0;
  std::optional<DocumentReader> reader_;
  Skipped skipped_;
};

void write(const fmt::memory_buffer& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size())
    throw Error(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
}

void run(const TokenizeOptions& options, const CommonOptions& common) {
  const Tokenizer tokenizer(options.tokenizer.empty() ? find_model(options.model) + "/tokenizer.model"
                                                      : options.tokenizer);
  StopSignal stop;
  Files files(options, stop);
  const int threads = common.threads > 0 ? common.threads : static_cast<int>(std::thread::hardware_concurrency());
  EncodePipeline pipeline([&](Item& item) { return files.next(item); }, &tokenizer, std::max(threads, 1), stop);
  fmt::memory_buffer line;
  const std::string begin = options.bos ? fmt::format("{{\"ids\":[{}", tokenizer.bos()) : "{\"ids\":[";
  for (Item item; pipeline.next(item);) {
    line.clear();
    line.append(begin);
    const char* separator = options.bos ? "," : "";
    for (const int32_t id : item.ids) {
      fmt::format_to(std::back_inserter(line), "{}{}", separator, id);
      separator = ",";
    }
    line.append(std::string_view("]}\n"));
    write(line);
  }
  if (std::fflush(stdout) != 0) throw Error(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
  if (files.skipped().count > 0)
    fmt::print(stderr, "skipped {} malformed; the first: {}\n", files.skipped().count, files.skipped().first);
}

}  // namespace

void add_tokenize(CLI::App& app) {
  CLI::App* command = app.add_subcommand("tokenize", "Print the token ids of text: a JSON line per document");
  auto options = std::make_shared<TokenizeOptions>();
  auto common = std::make_shared<CommonOptions>();
  common->add(*command);
  command->add_option("--model", options->model, "folder, Hugging Face id in the local cache, or demo")
      ->capture_default_str();
  command->add_option("--tokenizer", options->tokenizer, "a tokenizer.model, instead of the model's");
  command->add_option("--data,FILE", options->data, "text: .txt .jsonl, also .zst .gz; - is standard input")
      ->required();
  command->add_option("--text-field", options->text_field, "of a jsonl object")->capture_default_str();
  command->add_flag("--bos", options->bos, "begin each document with BOS, as training does");
  command->add_flag("--skip-bad", options->skip_bad, "count and report malformed lines instead of stopping");
  command->callback([options, common] { run(*options, *common); });
}

}  // namespace gsae
