#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>

#include "io/detokenizer.h"
#include "io/hub.h"
#include "io/output_file.h"
#include "model/generator.h"
#include "model/sampling.h"
#include "tools/interrupt.h"
#include "tools/latent_reader.h"
#include "tools/lay_out.h"
#include "tools/memory_plan.h"
#include "tools/options.h"
#include "tools/output_option.h"
#include "tools/progress.h"
#include "tools/prompt.h"
#include "tools/steering.h"
#include "tools/text_output.h"

namespace gsae {

namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

struct GenerateOptions {
  CommonOptions common;
  std::string model = "google/gemma-2-2b", dtype = "bf16";
  std::string prompt, prompt_file;
  bool has_prompt = false, chat = false;
  std::string tokens = "50", samples = "1";
  double temperature = 0, top_p = 1;
  int64_t top_k = 0, top = 5;
  std::vector<std::string> steer, clamp, ablate;
  std::string layer, site;
  bool shows = false;
  std::string show;  // an SAE; empty: those of the edits
  std::string json;
  bool force = false;
};

// One continuation of the prompt.
struct Sample {
  std::vector<int32_t> ids;
  std::vector<double> logprobs;
  Detokenizer detokenizer;
  const char* stopped = "";  // why; empty: it goes on
};

std::string read_prompt(const GenerateOptions& o) {
  if (o.has_prompt == !o.prompt_file.empty())
    throw UsageError(o.has_prompt ? "--prompt and --prompt-file: give one of them"
                                  : "there is nothing to go on with: give --prompt TEXT or --prompt-file FILE");
  if (o.has_prompt) return o.prompt;
  std::ifstream file;
  if (o.prompt_file != "-") {
    file.open(o.prompt_file, std::ios::binary);
    if (!file || std::filesystem::is_directory(o.prompt_file))
      throw Error(fmt::format("cannot read {}", o.prompt_file));
  }
  std::string text(std::istreambuf_iterator<char>(o.prompt_file == "-" ? std::cin : file), {});
  if (text.ends_with('\n')) text.pop_back();  // editors end a file with one that nobody means
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

std::vector<Edit> parse_edits(const GenerateOptions& o) {
  std::vector<Edit> edits;
  for (const std::string& text : o.steer) edits.push_back(parse_edit("--steer", text));
  for (const std::string& text : o.clamp) edits.push_back(parse_edit("--clamp", text));
  for (const std::string& text : o.ablate) edits.push_back(parse_edit("--ablate", text));
  return edits;
}

// "the":  as JSON writes it, which leaves neither control characters nor doubt about spaces; as wide as a column.
std::string label(const Tokenizer& tokenizer, int32_t id) {
  std::string text = nlohmann::json(tokenizer.piece(id)).dump();
  int64_t columns = 0;
  for (const char c : text) columns += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  text.append(static_cast<size_t>(std::max<int64_t>(0, 18 - columns)), ' ');
  return text;
}

class Generation {
 public:
  explicit Generation(const GenerateOptions& o)
      : o_(o),
        tokens_(parse_whole("--tokens", o.tokens, 1, int64_t{1} << 30)),
        count_(parse_whole("--samples", o.samples, 1, 4096)),
        edits_(parse_edits(o)),
        text_(read_prompt(o)),
        ctx_(o.common.context()),
        progress_(o.common.quiet),
        dir_(find_model(o.model)),
        tokenizer_(dir_ + "/tokenizer.model"),
        model_(ctx_, dir_, o.dtype == "f32" ? DType::kF32 : DType::kBF16),
        prompt_(make_prompt(tokenizer_, model_.config(), text_, o.chat)),
        sampler_({o.temperature, o.top_k, o.top_p}, o.common.seed),
        output_(static_cast<size_t>(count_)) {
    if (count_ > 1 && o.temperature == 0)
      throw UsageError("--samples: without a --temperature above 0 they are all the same");
    if (count_ > 1 && o.shows) throw UsageError("--show-latents shows one sample: leave --samples out");
    if (o.temperature == 0 && (o.top_k > 0 || o.top_p < 1))
      progress_.note(fmt::format("{} has no effect: give --temperature above 0 to have tokens drawn",
                                 o.top_k == 0  ? "--top-p"
                                 : o.top_p < 1 ? "--top-k and --top-p"
                                               : "--top-k"));
    check_ids();
    choose_saes();
    allocate_memory();
    samples_.assign(static_cast<size_t>(count_), Sample{{}, {}, Detokenizer(tokenizer_)});
  }

  void run() {
    catch_interrupts();
    const auto start = Clock::now();
    read_the_prompt();
    std::vector<float> logits = generator_->logits();
    prompt_seconds_ = seconds_since(start);
    const auto then = Clock::now();
    for (int64_t step = 0; draw(logits, step) && !interrupted(); ++step) logits = feed();
    decode_seconds_ = seconds_since(then);
    // the last token that was chosen has latents of its own
    if (o_.shows && !interrupted() && generator_->length() < most_positions_) feed();
    finish();
  }

 private:
  const GemmaConfig& config() const { return model_.config(); }
  int64_t prompt_size() const { return static_cast<int64_t>(prompt_.ids.size()); }

  void check_ids() const {
    for (const int32_t id : prompt_.ids)
      if (id < 0 || id >= config().vocab)
        throw Error(
            fmt::format("token {} of the prompt is outside the model's vocabulary of {}: the tokenizer in {} "
                        "belongs to another model",
                        id, config().vocab, dir_));
    if (prompt_size() + tokens_ > config().max_positions)
      throw UsageError(fmt::format("the prompt has {} tokens and --tokens asks for {} more: {} takes {} in all",
                                   prompt_size(), tokens_, o_.model, config().max_positions));
  }

  void choose_saes() {
    const auto choose = [&](const std::string& path) {
      if (std::any_of(saes_.begin(), saes_.end(), [&](const ChosenSae& s) { return s.given == path; })) return;
      const SaeFile file = choose_sae(path);
      saes_.push_back({path, file, place_of(file, model_, o_.model, o_.layer, o_.site)});
    };
    for (const Edit& edit : edits_) choose(edit.sae);
    if (o_.shows && o_.show.empty() && saes_.empty())
      throw UsageError("--show-latents: which SAE's? give its path, or an edit of one of its latents");
    if (!o_.show.empty()) choose(o_.show);
    require_use_of_place(saes_, o_.layer, o_.site);
    steering_.emplace(ctx_, edits_, saes_);
  }

  // Everything, before the first token.
  void allocate_memory() {
    constexpr int64_t kCpuPiece = 1024, kGpuPiece = 8192;  // of the prompt: enough for the products to be fast
    const int64_t most = std::min(prompt_size(), ctx_.device() == Device::kCpu ? kCpuPiece : kGpuPiece);
    most_positions_ = prompt_size() + tokens_ - (o_.shows ? 0 : 1);  // what comes last is not gone on with
    MemoryPlan plan(ctx_);
    plan.add("cache, activations, logits", measure<Generator>(model_, count_, most_positions_, most),
             fmt::format("{} of {} positions", count_ == 1 ? "a sequence" : fmt::format("{} sequences", count_),
                         most_positions_));
    std::vector<const ChosenSae*> shown;
    for (const ChosenSae& sae : saes_)
      if (o_.shows && (o_.show.empty() || sae.given == o_.show)) shown.push_back(&sae);
    for (const ChosenSae* sae : shown) plan.add("SAE shown", LatentReader::bytes(sae->file, most), sae->given);
    plan.check(shown.empty() ? "choose fewer --samples or --tokens, or a shorter prompt"
                             : "choose fewer --tokens, a shorter prompt, or --show-latents of a smaller SAE");
    generator_ = allocate<Generator>(ctx_.device(), memory_, model_, count_, most_positions_, most);
    // Edits come first: what is shown is what the model goes on with.
    std::vector<Hook> hooks = steering_->hooks([g = generator_.get()] { return g->start() == 0 ? 1 : 0; });
    for (const ChosenSae* sae : shown) {
      readers_.push_back(std::make_unique<LatentReader>(ctx_, *sae, most));
      hooks.push_back(readers_.back()->hook());
    }
    generator_->set_hooks(std::move(hooks));
  }

  void read_the_prompt() {
    const std::span<const int32_t> ids(prompt_.ids);
    for (size_t at = 0; at < ids.size() && !interrupted();) {
      const auto piece = ids.subspan(at, std::min(ids.size() - at, static_cast<size_t>(generator_->most())));
      generator_->add(ctx_, piece);
      show(piece);
      at += piece.size();
    }
    if (interrupted()) throw Interrupted("interrupted: nothing was generated yet");
    if (count_ > 1) generator_->fork(ctx_);
  }

  // The next token of each sample that goes on. Whether any does after it.
  bool draw(const std::vector<float>& logits, int64_t step) {
    const auto vocab = static_cast<size_t>(config().vocab);
    bool more = false;
    for (size_t i = 0; i < samples_.size(); ++i) {
      Sample& s = samples_[i];
      if (*s.stopped) continue;
      const auto row = std::span(logits).subspan(logits.size() > vocab ? i * vocab : 0, vocab);
      const SampledToken token = sampler_.draw(row, static_cast<int64_t>(i), step);
      s.ids.push_back(token.id);
      s.logprobs.push_back(token.logprob);
      const bool ends = std::find(prompt_.ends.begin(), prompt_.ends.end(), token.id) != prompt_.ends.end();
      if (ends) s.stopped = token.id == config().eos ? "eos" : "end_of_turn";
      else if (step + 1 == tokens_) s.stopped = "tokens";
      std::string piece = ends ? "" : s.detokenizer.add(token.id);
      if (*s.stopped) piece += s.detokenizer.finish();
      say(i, piece, *s.stopped);
      more |= !*s.stopped;
    }
    return more;
  }

  void say(size_t sample, const std::string& piece, bool ends) {
    if (o_.shows) {  // the table comes first
      shown_text_ += piece;
      return;
    }
    output_.add(sample, piece);
    if (ends) output_.end(sample);
  }

  std::vector<float> feed() {
    std::vector<int32_t> ids;
    for (const Sample& s : samples_) ids.push_back(s.ids.back());
    generator_->next(ctx_, ids);
    show(ids);
    return generator_->logits();
  }

  // A line for each token of the last pass.
  void show(std::span<const int32_t> ids) {
    if (!o_.shows) return;
    const auto rows = static_cast<int64_t>(ids.size());
    std::vector<std::vector<std::vector<LatentReader::Activation>>> active;  // of each SAE and row
    for (const auto& reader : readers_) active.push_back(reader->read(ctx_, rows, o_.top));
    std::string out;
    for (int64_t r = 0; r < rows; ++r) {
      const auto position = static_cast<int64_t>(shown_.size());
      out += fmt::format("{:>5}  {}", position, label(tokenizer_, ids[r]));
      nlohmann::ordered_json latents = nlohmann::ordered_json::array();
      for (size_t s = 0; s < active.size(); ++s) {
        if (s > 0) out += "  |";
        nlohmann::ordered_json of_sae = nlohmann::ordered_json::array();
        for (const auto& a : active[s][static_cast<size_t>(r)]) {
          out += fmt::format("  {}:{:.4g}", a.latent, a.value);
          of_sae.push_back({a.latent, a.value});
        }
        latents.push_back(std::move(of_sae));
      }
      out += "\n";
      shown_.push_back({{"id", ids[r]}, {"latents", std::move(latents)}});
    }
    print_result(out);
  }

  void finish() {
    if (interrupted())
      for (size_t i = 0; i < samples_.size(); ++i) {
        Sample& s = samples_[i];
        if (*s.stopped) continue;
        s.stopped = "interrupted";
        say(i, s.detokenizer.finish(), false);
      }
    if (o_.shows) {
      print_result("\n");
      output_.add(0, shown_text_);
    }
    output_.close();
    if (!o_.json.empty()) write_json();
    if (interrupted())
      throw Interrupted(fmt::format("interrupted after {} of {} tokens", samples_[0].ids.size(), tokens_));
    const auto rate = [](double n, double seconds) { return n / std::max(seconds, 1e-9); };
    std::string note = fmt::format("prompt: {} tokens in {:.3f} s, {:.1f} tokens/s", prompt_size(), prompt_seconds_,
                                   rate(double(prompt_size()), prompt_seconds_));
    int64_t decoded = -count_;  // the first of each came with the prompt
    for (const Sample& s : samples_) decoded += static_cast<int64_t>(s.ids.size());
    if (decoded > 0)
      note += fmt::format("; then {} tokens in {:.3f} s, {:.1f} tokens/s", decoded, decode_seconds_,
                          rate(double(decoded), decode_seconds_));
    progress_.note(note);
  }

  void write_json() const {
    nlohmann::ordered_json j{{"version", GSAE_VERSION}, {"model", o_.model},
                             {"dtype", o_.dtype},       {"prompt", text_},
                             {"chat", o_.chat},         {"prompt_ids", prompt_.ids},
                             {"tokens", tokens_},       {"temperature", o_.temperature},
                             {"top_k", o_.top_k},       {"top_p", o_.top_p},
                             {"seed", o_.common.seed}};
    j["edits"] = nlohmann::ordered_json::array();
    for (const Edit& edit : edits_) {
      const auto sae = std::find_if(saes_.begin(), saes_.end(), [&](const auto& s) { return s.given == edit.sae; });
      j["edits"].push_back(to_json(edit));
      j["edits"].back().update({{"site", name(sae->place.site)}, {"layer", sae->place.layer}});
    }
    j["samples"] = nlohmann::ordered_json::array();
    for (size_t i = 0; i < samples_.size(); ++i) {
      const Sample& s = samples_[i];
      j["samples"].push_back(
          {{"ids", s.ids}, {"text", output_.text(i)}, {"logprobs", s.logprobs}, {"stopped", s.stopped}});
    }
    if (o_.shows) {
      nlohmann::ordered_json saes = nlohmann::ordered_json::array();
      for (const auto& reader : readers_) saes.push_back(reader->sae().given);
      j["shown"] = {{"saes", std::move(saes)}, {"positions", shown_}};
    }
    j["seconds"] = {{"prompt", prompt_seconds_}, {"decode", decode_seconds_}};
    write_file(o_.json, j.dump(1) + "\n");
  }

  const GenerateOptions& o_;
  int64_t tokens_, count_;
  std::vector<Edit> edits_;
  std::string text_;  // the prompt's
  Context ctx_;
  Progress progress_;
  std::string dir_;
  Tokenizer tokenizer_;
  Gemma2 model_;
  Prompt prompt_;
  Sampler sampler_;
  TextOutput output_;
  std::vector<ChosenSae> saes_;
  std::optional<Steering> steering_;
  std::vector<std::unique_ptr<LatentReader>> readers_;
  Buffer memory_;
  std::unique_ptr<Generator> generator_;  // in memory_
  int64_t most_positions_ = 0;

  std::vector<Sample> samples_;
  double prompt_seconds_ = 0, decode_seconds_ = 0;
  std::string shown_text_;
  nlohmann::ordered_json shown_ = nlohmann::ordered_json::array();  // positions
};

}  // namespace

void add_generate(CLI::App& app) {
  auto o = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "text from the model, steered by latents of SAEs if you like");
  command->add_option("--model", o->model, "folder, Hugging Face id in the local cache, or demo")
      ->capture_default_str();
  command->add_option("--dtype", o->dtype, "of the model's matrix products: bf16 or f32")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  CLI::Option* prompt = command->add_option("--prompt", o->prompt, "the text to go on with");
  command->add_option("--prompt-file", o->prompt_file, "a file that holds it; - is standard input");
  command->add_flag("--chat", o->chat,
                    "the prompt is a user's turn, in the format of Gemma's instruction-tuned models");
  command->add_option("--tokens", o->tokens, "how many to generate, at most")->capture_default_str();
  command->add_option("--samples", o->samples, "how many continuations")->capture_default_str();
  command->add_option("--temperature", o->temperature, "0: the most likely token, always")
      ->check(number_range(0, 1e6))
      ->capture_default_str();
  command->add_option("--top-k", o->top_k, "choose among so many of the most likely; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
  command->add_option("--top-p", o->top_p, "and among the fewest whose probabilities sum to this")
      ->check(number_range(0, 1, true))
      ->capture_default_str();
  const auto repeatable = [&](const char* option, std::vector<std::string>& values, const char* what) {
    command->add_option(option, values, what)->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  };
  repeatable("--steer", o->steer, "SAE:latent=strength: add the latent's direction, so long, at its site; repeatable");
  repeatable("--clamp", o->clamp, "SAE:latent=value: set the latent's activation; repeatable");
  repeatable("--ablate", o->ablate, "SAE:latent: set it to 0; repeatable");
  command->add_option("--layer", o->layer, "where an SAE reads, if its file does not say");
  command->add_option("--site", o->site, "pre, att, attn_out, mlp_in, mlp or res, if its file does not say");
  CLI::Option* show =
      command->add_option("--show-latents", o->show, "print each token with an SAE's strongest latents (of the edits)")
          ->expected(0, 1);
  command->add_option("--top", o->top, "how many latents")
      ->check(CLI::Range(int64_t{1}, int64_t{1000}))
      ->capture_default_str();
  command->add_option("--json", o->json, "write ids, text, log probabilities and settings to this file");
  command->add_flag("--force", o->force, "replace the --json file if it exists");
  o->common.add(*command);
  command->callback([o, prompt, show] {
    o->has_prompt = prompt->count() > 0;
    o->shows = show->count() > 0;
    if (!o->json.empty()) require_new_file("--json", o->json, o->force);
    Generation(*o).run();
  });
}

}  // namespace gsae
