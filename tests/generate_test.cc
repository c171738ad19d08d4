// `generate` through the binary, on the demo model; tests/data/make_generate.py says what transformers gives.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "io/json.h"
#include "io/npz.h"
#include "io/system_memory.h"
#include "io/tokenizer.h"
#include "tests/harness.h"
#include "tests/run_binary.h"

namespace gsae::test {
namespace {

const std::string kSae = test_data("eval/params.npz");  // of the demo model, res 3

std::vector<std::string> command(const std::vector<std::string>& more) {
  std::vector<std::string> words{"generate", "--model", "demo", "--threads", "1"};
  if (std::find(more.begin(), more.end(), "--dtype") == more.end()) words.insert(words.end(), {"--dtype", "f32"});
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

nlohmann::json golden(const std::string& name) { return read_json(test_data("generate/" + name)); }

// One golden case: ids, text and log probabilities are transformers'; and what is printed is the text.
void expect_case(const nlohmann::json& c, const std::vector<std::string>& more, int64_t tokens) {
  const TempFolder dir;
  auto words = command({"--prompt", c.at("prompt"), "--tokens", std::to_string(tokens), "--json", dir / "g.json"});
  words.insert(words.end(), more.begin(), more.end());
  const Outcome r = run_binary(words);
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_NE(r.err.find("tokens/s"), std::string::npos) << r.err;
  const auto got = read_json(dir / "g.json");
  EXPECT_EQ(got.at("prompt_ids"), c.at("prompt_ids"));
  const auto& sample = got.at("samples").at(0);
  std::vector<int32_t> want = c.at("ids");
  const bool whole = tokens >= int64_t(want.size());
  want.resize(std::min(want.size(), size_t(tokens)));
  EXPECT_EQ(sample.at("ids"), nlohmann::json(want)) << c.at("prompt");
  EXPECT_EQ(r.out, sample.at("text").get<std::string>() + "\n");
  const std::string text = c.at("text");
  EXPECT_EQ(sample.at("text"), whole ? text : text.substr(0, sample.at("text").get<std::string>().size()));
  EXPECT_EQ(sample.at("stopped"), want.back() == 1 ? "eos" : "tokens");
  // f32 through some dozens of tokens, whose keys and values stay: 1e-4 of a logit of up to 30
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(sample.at("logprobs").at(i).get<double>(), c.at("logprobs").at(i).get<double>(), 5e-4) << i;
}

struct GenerateOn : OnDevice {
  std::vector<std::string> on_device(std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--device", name(GetParam())});
    return more;
  }
};
ON_DEVICES(GenerateOn);

// 100 tokens where the window is 64, one prompt of several windows among them. The emulation takes the shortest way.
TEST_P(GenerateOn, GoesOnAsTransformersDoes) {
  const auto cases = golden("demo.json");
  ASSERT_GE(cases.size(), 6u);
  if (emulated(ctx)) return expect_case(cases.at(0), on_device(), 6);
  for (const auto& c : cases) expect_case(c, on_device(), c.at("tokens"));
}

// Directions added, activations set, and both at once.
TEST_P(GenerateOn, SteersAsAHookInTransformersDoes) {
  const auto cases = golden("steered.json");
  ASSERT_GE(cases.size(), 6u);
  for (const auto& c : cases) {
    std::vector<std::string> more{"--layer", "3", "--site", "res"};
    for (const auto& e : c.at("edits")) {
      const std::string latent = kSae + ":" + e.at("latent").dump();
      if (e.contains("strength")) more.insert(more.end(), {"--steer", latent + "=" + e.at("strength").dump()});
      else if (e.at("value") == 0) more.insert(more.end(), {"--ablate", latent});
      else more.insert(more.end(), {"--clamp", latent + "=" + e.at("value").dump()});
    }
    expect_case(c, on_device(more), emulated(ctx) ? 3 : c.at("tokens").get<int64_t>());
    if (emulated(ctx) && c.at("edits").size() == 3) break;
  }
}

// A table of the tokens, the prompt's too, then the text. In two passes, one of them a token at a time.
TEST(Generate, ShowsTheStrongestLatents) {
  const auto want = golden("latents.json");
  const std::vector<int32_t> ids = want.at("ids");
  const TempFolder dir;
  const Outcome r =
      run_binary(command({"--prompt", want.at("prompt"), "--tokens", "20", "--layer", "3", "--site", "res",
                          "--show-latents", kSae, "--top", "3", "--quiet", "--json", dir / "g.json"}));
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.err, "");
  const auto shown = read_json(dir / "g.json").at("shown").at("positions");
  ASSERT_EQ(shown.size(), 24u);  // the last token that is generated has its line
  for (size_t p = 0; p < shown.size(); ++p) {
    EXPECT_EQ(shown.at(p).at("id"), ids[p]);
    for (size_t i = 0; i < 3; ++i) {
      const auto &got = shown.at(p).at("latents").at(0).at(i), &expected = want.at("latents").at(p).at(i);
      EXPECT_EQ(got.at(0), expected.at(0)) << "position " << p;
      EXPECT_NEAR(got.at(1).get<double>(), expected.at(1).get<double>(), 2e-3) << "position " << p;
    }
  }
  const std::string first =
      fmt::format("    1  \"The\"               {}:", want.at("latents").at(1).at(0).at(0).dump());
  EXPECT_NE(r.out.find(first), std::string::npos) << r.out;
  const std::string text = golden("demo.json").at(0).at("text");
  EXPECT_NE(r.out.find("\n\n" + text.substr(0, 20)), std::string::npos) << r.out;
}

// Without a path: those of the edits, as the model goes on with them. Ablated, the latent is gone (its direction and
// its encoder's row being alike enough to bring it below the threshold).
TEST(Generate, ShowsWhatAnEditLeaves) {
  const auto run = [](const std::vector<std::string>& more) {
    auto words = command({"--prompt", "The dog", "--tokens", "3", "--layer", "3", "--site", "res", "--quiet"});
    words.insert(words.end(), more.begin(), more.end());
    const Outcome r = run_binary(words);
    EXPECT_EQ(r.status, 0) << r.err;
    return r.out;
  };
  EXPECT_NE(run({"--show-latents", kSae}).find("\"The\"               2042:"), std::string::npos);
  EXPECT_EQ(run({"--ablate", kSae + ":2042", "--show-latents"}).find("2042:"), std::string::npos);
}

struct Sampled {
  std::string out;
  nlohmann::json samples;
};
Sampled sample(std::vector<std::string> more) {
  const TempFolder dir;
  more.insert(more.end(), {"--prompt", "The dog", "--temperature", "1", "--tokens", "12", "--quiet", "--json"});
  more.push_back(dir / "g.json");
  const auto words = command(more);
  const Outcome r = run_binary(words);
  EXPECT_EQ(r.status, 0) << r.err;
  return {r.out, read_json(dir / "g.json").at("samples")};
}

// Seed and number decide a sample, not how many there are up to 8. They are printed one below the other.
TEST(Generate, SamplesAreTheirSeedsAndNumbers) {
  const Sampled three = sample({"--samples", "3", "--seed", "4"}), one = sample({"--seed", "4"});
  ASSERT_EQ(three.samples.size(), 3u);
  EXPECT_EQ(three.samples.at(0), one.samples.at(0));
  EXPECT_EQ(sample({"--samples", "3", "--seed", "4"}).samples, three.samples);
  EXPECT_NE(three.samples.at(0).at("ids"), three.samples.at(1).at("ids"));
  EXPECT_NE(sample({"--seed", "5"}).samples.at(0).at("ids"), one.samples.at(0).at("ids"));
  std::string want;
  for (int i = 0; i < 3; ++i)
    want += fmt::format("{}--- {} of 3 ---\n{}\n", i > 0 ? "\n" : "", i + 1,
                        three.samples.at(i).at("text").get<std::string>());
  EXPECT_EQ(three.out, want);
  // as little random as it gets
  const std::vector<int32_t> greedy = golden("demo.json").at(0).at("ids");
  EXPECT_EQ(sample({"--top-k", "1"}).samples.at(0).at("ids"),
            nlohmann::json(std::vector(greedy.begin(), greedy.begin() + 12)));
}

// As many as docs/generate.md promises it for: to the bit, in both types of the model's products.
TEST(Generate, EightSamplesAreWhatOneIs) {
  for (const char* dtype : {"bf16", "f32"}) {
    const std::vector<std::string> same{"--seed", "6", "--dtype", dtype, "--device", "cpu"};
    auto eight = same;
    eight.insert(eight.end(), {"--samples", "8"});
    const auto of_eight = sample(eight).samples;
    ASSERT_EQ(of_eight.size(), 8u);
    EXPECT_EQ(of_eight.at(0), sample(same).samples.at(0)) << dtype;
  }
}

// Those that have ended are no longer decoded.
TEST(Generate, SpeedCountsTheTokensThatWereDecoded) {
  const TempFolder dir;
  const Outcome r = run_binary(command({"--prompt", "The dog", "--temperature", "1.5", "--tokens", "100", "--samples",
                                        "4", "--seed", "3", "--json", dir / "g.json"}));
  ASSERT_EQ(r.status, 0) << r.err;
  size_t tokens = 0, longest = 0;
  const auto samples = read_json(dir / "g.json").at("samples");
  for (const auto& s : samples) tokens += s.at("ids").size(), longest = std::max(longest, s.at("ids").size());
  ASSERT_LT(tokens, 4 * longest) << "none ended before the others: choose another --seed";
  EXPECT_NE(r.err.find(fmt::format("; then {} tokens in", tokens - 4)), std::string::npos) << r.err;
}

// The demo's vocabulary has Gemma's turns, though the model never saw any.
TEST(Generate, ChatTemplate) {
  const Tokenizer tokenizer(demo_data("model/tokenizer.model"));
  const TempFolder dir;
  const auto ids = [&](const std::string& prompt, const std::vector<std::string>& more) {
    auto words = command({"--prompt", prompt, "--tokens", "1", "--quiet", "--force", "--json", dir / "g.json"});
    words.insert(words.end(), more.begin(), more.end());
    const Outcome r = run_binary(words);
    EXPECT_EQ(r.status, 0) << r.err;
    return read_json(dir / "g.json").at("prompt_ids").get<std::vector<int32_t>>();
  };
  const int32_t start = tokenizer.find("<start_of_turn>"), end = tokenizer.find("<end_of_turn>");
  ASSERT_GE(std::min(start, end), 0);
  std::vector<int32_t> want{tokenizer.bos(), start};
  const auto append = [&](const std::string& text) {
    for (const int32_t id : tokenizer.encode(text)) want.push_back(id);
  };
  append("user\nThe dog");
  want.push_back(end);
  append("\n");
  want.push_back(start);
  append("model\n");
  EXPECT_EQ(ids("  The dog\n", {"--chat"}), want);
  // what the prompt spells is text, in both ways
  for (const bool chat : {false, true}) {
    const std::string text = "a<end_of_turn>\n<start_of_turn>model\n<bos>b";
    const auto got = ids(text, chat ? std::vector<std::string>{"--chat"} : std::vector<std::string>{});
    EXPECT_EQ(std::count(got.begin(), got.end(), start), chat ? 2 : 0);
    EXPECT_EQ(std::count(got.begin(), got.end(), end), chat ? 1 : 0);
    EXPECT_EQ(std::count(got.begin(), got.end(), tokenizer.bos()), 1);
    if (!chat) {
      EXPECT_EQ(tokenizer.decode(got), text);
    }
  }
}

TEST(Generate, PromptFromAFileAndFromStandardInput) {
  const TempFolder dir;
  write_bytes(dir / "prompt.txt", "The dog\n");
  const auto words = [&](const std::string& file) {
    return command({"--prompt-file", file, "--tokens", "8", "--quiet"});
  };
  const std::string want = run_binary(command({"--prompt", "The dog", "--tokens", "8", "--quiet"})).out;
  EXPECT_EQ(run_binary(words(dir / "prompt.txt")).out, want);
  EXPECT_EQ(run_binary(words("-"), {}, "The dog\n").out, want);
  EXPECT_EQ(run_binary(words("-"), {}, "The dog\r\n").out, want);
  expect_outcome(run_binary(words(dir / "none.txt")), 1, {"cannot read", "none.txt"});
  expect_outcome(run_binary(words("-"), {}, "a\xC3"), 1, {"UTF-8", "byte 1"});
}

// Each with what the message has to name.
TEST(Generate, WrongOptionsSayWhatIsWrong) {
  struct Wrong {
    std::vector<std::string> words;
    int status;
    std::vector<std::string> parts;
  };
  const TempFolder dir;
  write_bytes(dir / "there.json", "");
  std::filesystem::create_directory_symlink(test_data("eval"), dir / "alias");
  std::filesystem::create_directory(dir / "says");
  std::filesystem::copy(kSae, dir / "says/params.npz");
  write_bytes(dir / "says/config.json", R"({"layer": 3, "site": "res"})");
  const std::vector<std::string> place{"--layer", "3", "--site", "res"};
  const auto placed = [&](std::vector<std::string> words) {
    words.insert(words.end(), place.begin(), place.end());
    return words;
  };
  const std::vector<Wrong> all{
      {placed({"--steer", kSae + ":17"}), 2, {"--steer", "SAE:latent=value"}},
      {placed({"--steer", "17=2"}), 2, {"SAE:latent=value"}},
      {placed({"--steer", kSae + ":-1=2"}), 2, {"SAE:latent=value"}},
      {placed({"--steer", kSae + ":x=2"}), 2, {"SAE:latent=value"}},
      {placed({"--clamp", kSae + ":17=x"}), 2, {"--clamp", ":17=x", "number"}},
      {placed({"--steer", kSae + ":17=nan"}), 2, {"--steer", ":17=nan", "number"}},
      {placed({"--ablate", kSae + ":17=0"}), 2, {"--ablate", "SAE:latent"}},
      {placed({"--steer", kSae + ":4096=1"}), 1, {"4096", "latents 0 to 4095"}},
      {placed({"--steer", kSae + ":5=1", "--clamp", kSae + ":5=1"}), 2, {":5", "same latent"}},
      {placed({"--steer", kSae + ":5=1", "--clamp", dir / "alias/params.npz:5=1"}), 2, {"alias", "same latent"}},
      {placed({"--steer", kSae + ":5=1", "--ablate", test_data("eval/../eval/params.npz:5")}), 2, {"same latent"}},
      {{"--steer", dir / "says:5=1", "--layer", "2"}, 2, {"--layer 2", "says", "layer 3"}},
      {{"--steer", dir / "says:5=1", "--site", "att"}, 2, {"--site att", "says", "site res"}},
      {{"--show-latents", dir / "says", "--layer", "2"}, 2, {"--layer 2", "says", "layer 3"}},
      {{"--layer", "3"}, 2, {"--layer 3", "no SAE"}},
      {{"--site", "res"}, 2, {"--site res", "no SAE"}},
      {{"--site", "bogus"}, 2, {"--site bogus", "attn_out"}},
      {{"--layer", "x"}, 2, {"--layer"}},
      {placed({"--steer", dir / "none:5=1"}), 1, {"none", "no such file"}},
      {{"--steer", kSae + ":5=1", "--site", "res"}, 2, {"params.npz", "--layer"}},
      {{"--steer", kSae + ":5=1", "--layer", "3"}, 2, {"params.npz", "--site"}},
      {{"--steer", kSae + ":5=1", "--layer", "6", "--site", "res"}, 2, {"0 to 5"}},
      {{"--steer", kSae + ":5=1", "--layer", "3", "--site", "att"}, 1, {"width 192", "site att", "256"}},
      {{"--show-latents"}, 2, {"--show-latents", "path"}},
      {{"--samples", "2"}, 2, {"--samples", "--temperature"}},
      {{"--samples", "0", "--temperature", "1"}, 2, {"--samples"}},
      {{"--tokens", "0"}, 2, {"--tokens"}},
      {{"--tokens", "1021"}, 2, {"4 tokens", "1021", "1024"}},
      {{"--temperature", "-1"}, 2, {"--temperature"}},
      {{"--temperature", "nan"}, 2, {"--temperature", "nan", "from 0 to 1e+06"}},
      {{"--temperature", "inf"}, 2, {"--temperature"}},
      {{"--top-p", "nan"}, 2, {"--top-p", "nan"}},
      {{"--top-p", "0"}, 2, {"--top-p", "above 0, at most 1"}},
      {{"--seed", "-1"}, 2, {"--seed", "-1", "0 to 18446744073709551615"}},
      {{"--seed", "99999999999999999999999"}, 2, {"--seed", "99999999999999999999999"}},
      {{"--seed", "1x"}, 2, {"--seed"}},
      {{"--top-p", "1.5"}, 2, {"--top-p"}},
      {{"--top-k", "-1"}, 2, {"--top-k"}},
      {{"--prompt-file", "x"}, 2, {"--prompt", "--prompt-file"}},
      {{"--json", dir / "there.json"}, 1, {"there.json", "--force"}},
  };
  for (const Wrong& w : all) {
    auto words = command({"--prompt", "The dog"});
    words.insert(words.end(), w.words.begin(), w.words.end());
    const Outcome o = run_binary(words);
    expect_outcome(o, w.status, w.parts);
    EXPECT_EQ(o.out, "") << w.words[0];
  }
  expect_outcome(run_binary(command({})), 2, {"--prompt"});
  const auto nowhere = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"generate", "--model", dir / "nowhere", "--prompt", "a"});
    return run_binary(more);
  };
  expect_outcome(nowhere({}), 1, {"nowhere"});
  // before the model is looked for
  expect_outcome(nowhere({"--json", dir / "none/x.json"}), 1, {"none/x.json", "create the folder"});
  expect_outcome(nowhere({"--json", dir / "says", "--force"}), 1, {"says", "directory"});
}

// What --layer and --site say of one SAE is no contradiction of another's file.
TEST(Generate, APlaceIsForTheSaesWhoseFilesDoNotSay) {
  const TempFolder dir;
  std::filesystem::create_directory(dir / "says");
  std::filesystem::copy(kSae, dir / "says/params.npz");
  write_bytes(dir / "says/config.json", R"({"layer": 3, "site": "res"})");
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"--prompt", "The dog", "--tokens", "2", "--quiet", "--steer", dir / "says:5=1"});
    return run_binary(command(more));
  };
  for (const Outcome& o : {run({"--layer", "3"}), run({"--steer", kSae + ":5=1", "--layer", "2", "--site", "res"})})
    EXPECT_EQ(o.status, 0) << o.err;
}

TEST(Generate, SaysThatTopWithoutATemperatureDoesNothing) {
  const auto note = [](std::vector<std::string> more) {
    more.insert(more.begin(), {"--prompt", "The dog", "--tokens", "1"});
    const Outcome r = run_binary(command(more));
    EXPECT_EQ(r.status, 0) << r.err;
    return r.err.substr(0, r.err.find(" no effect"));
  };
  EXPECT_EQ(note({"--top-k", "3"}), "--top-k has");
  EXPECT_EQ(note({"--top-p", "0.5"}), "--top-p has");
  EXPECT_EQ(note({"--top-k", "3", "--top-p", "0.5", "--quiet"}), "");
  EXPECT_EQ(note({"--top-k", "3", "--temperature", "1"}).find("has"), std::string::npos);
}

// An SAE of 384 GiB, of which only the header is there: it is in the plan, and nobody begins to load it.
TEST(Generate, TheSaesShownAreInTheMemoryPlan) {
  const TempFolder dir;
  constexpr int64_t d = 192, F = int64_t{1} << 28;
  std::string header = "{";
  int64_t end = 0;
  for (const auto& [name, shape] : {std::pair{"w_enc", std::vector<int64_t>{d, F}},
                                    {"w_dec", {F, d}},
                                    {"b_enc", {F}},
                                    {"b_dec", {d}},
                                    {"threshold", {F}}}) {
    const int64_t begin = end;
    end += 4 * (shape.size() == 2 ? d * F : shape[0]);
    header += fmt::format(R"({}"{}":{{"dtype":"F32","shape":{},"data_offsets":[{},{}]}})", begin ? "," : "", name,
                          nlohmann::json(shape).dump(), begin, end);
  }
  header += "}";
  header.append(8 - header.size() % 8, ' ');
  const auto size = static_cast<uint64_t>(header.size());
  const std::string file = dir / "params.safetensors";
  write_bytes(file, std::string(reinterpret_cast<const char*>(&size), 8) + header);
  std::error_code error;
  std::filesystem::resize_file(file, 8 + header.size() + static_cast<uintmax_t>(end), error);
  if (system_memory().available > 8 * static_cast<size_t>(d * F)) GTEST_SKIP() << "it would be loaded";
  if (error) GTEST_SKIP() << "no file of 384 GiB, sparse or not: " << error.message();
  const Outcome o =
      run_binary(command({"--prompt", "The dog", "--layer", "3", "--site", "res", "--show-latents", file}));
  expect_outcome(o, 1, {"SAE shown", "params.safetensors", "--show-latents of a smaller SAE"});
}

// Of a folder of several SAEs one is named, as the run's log has it.
TEST(Generate, AnSaeOfARunByItsName) {
  const TempFolder dir;
  for (const auto& [folder, name] : {std::pair{"a", "res.3/1k/l0_32"}, {"b", "res.3/1k/l0_64"}}) {
    std::filesystem::create_directories(dir / folder);
    std::filesystem::copy(kSae, dir / (std::string(folder) + "/params.npz"));
    write_bytes(dir / (std::string(folder) + "/config.json"),
                fmt::format(R"({{"layer": 3, "site": "res", "sae": "{}"}})", name));
  }
  write_bytes(dir / "run.json", "{}");  // which makes the folder a run's
  const auto run = [&](const std::string& sae) {
    return run_binary(command({"--prompt", "The dog", "--tokens", "8", "--quiet", "--steer", sae + ":1000=30"}));
  };
  const Outcome named = run(dir / "res.3/1k/l0_64"), file = run(dir / "b/params.npz"), folder = run(dir / "b");
  EXPECT_EQ(named.status, 0) << named.err;
  EXPECT_EQ(file.out, named.out);
  EXPECT_EQ(folder.out, named.out);
  expect_outcome(run(dir.path()), 1, {"2 SAEs", "res.3/1k/l0_32", "res.3/1k/l0_64"});
  expect_outcome(run(dir / "res.3/1k/l0_99"), 1, {"l0_99", "res.3/1k/l0_32"});
}

// Ctrl-C behind the first token, long before the last: what is there stays, a line break, and the shell's status.
TEST(Generate, AnInterruptKeepsWhatIsThere) {
  const TempFolder dir;
  RunningBinary running(
      command({"--prompt", "The dog", "--tokens", "1020", "--quiet", "--json", dir / "g.json", "--device", "cpu"}));
  for (int i = 0; i < 12000 && running.out().empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  running.signal(SIGINT);
  const Outcome o = running.wait();
  EXPECT_EQ(o.status, 130) << o.err;
  EXPECT_NE(o.err.find("interrupted"), std::string::npos) << o.err;
  const auto sample = read_json(dir / "g.json").at("samples").at(0);
  EXPECT_EQ(sample.at("stopped"), "interrupted");
  EXPECT_EQ(o.out, sample.at("text").get<std::string>() + "\n");
}

// A reader that goes away ends it like any filter: by the signal, without a word.
TEST(Generate, AClosedOutputEndsQuietly) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  close(ends[0]);
  RunningBinary running(command({"--prompt", "The dog", "--tokens", "100", "--quiet"}), {}, "", ends[1]);
  close(ends[1]);
  const Outcome o = running.wait();
  EXPECT_EQ(o.status, 128 + SIGPIPE);
  EXPECT_EQ(o.err, "");
}

}  // namespace
}  // namespace gsae::test
