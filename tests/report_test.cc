#include <filesystem>

#include "io/json.h"
#include "tests/report_fixture.h"
#include "tests/run_binary.h"
#include "tools/report_page.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

void train(const std::string& out, const Words& more) {
  Words words{"train",     "--model",     "demo",    "--batch",   "256",     "--steps", "12",
              "--buffer",  "2k",          "--quiet", "--threads", "1",       "--site",  "res",
              "--context", "64",          "--layer", "2",         "--width", "128",     "--eval-contexts",
              "6",         "--log-every", "2",       "--out",     out};
  words.insert(words.end(), more.begin(), more.end());
  const Outcome o = run_binary(words);
  ASSERT_EQ(o.status, 0) << o.err;
}

Words report(const std::string& run, const std::string& out, const Words& more = {}) {
  Words words{"report", run, "--out", out, "--tokens", "3000", "--count", "4", "--quiet", "--threads", "1"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// Several SAEs of one run: curves, evaluation, densities, latents of each; model, data and contexts are the run's.
TEST(Report, OfASuite) {
  const TempFolder dir;
  train(dir / "run", {"--l0", "4,8"});
  const Outcome o = run_binary(report(dir / "run", dir / "page.html"));
  ASSERT_EQ(o.status, 0) << o.err;
  EXPECT_NE(o.out.find("wrote " + dir / "page.html"), std::string::npos) << o.out;
  const std::string html = read_bytes(dir / "page.html");
  const json page = data_of_page(html);
  ASSERT_EQ(page["runs"].size(), 1u);
  EXPECT_EQ(page["runs"][0]["name"], "run");
  EXPECT_EQ(page["runs"][0]["finished"], true);
  EXPECT_EQ(page["runs"][0]["settings"]["model"], "demo");
  EXPECT_TRUE(page["runs"][0]["notes"].empty());
  ASSERT_EQ(page["saes"].size(), 2u);
  for (const json& sae : page["saes"]) {
    EXPECT_EQ(sae["site"], "res");
    EXPECT_EQ(sae["layer"], 2);
    EXPECT_EQ(sae["latents"], 128);
    ASSERT_EQ(sae["curves"]["tokens"].size(), 6u);
    EXPECT_EQ(sae["curves"]["tokens"][5], 12 * 256);
    for (const char* curve : {"loss", "l0", "fvu", "dead", "lambda", "lr"}) EXPECT_EQ(sae["curves"][curve].size(), 6u);
    EXPECT_TRUE(sae["evaluation"]["fvu"]["value"].is_number());
    EXPECT_TRUE(sae["evaluation"]["delta_loss"]["value"].is_number());
    EXPECT_EQ(sae["seen"]["context"], 64);
    EXPECT_EQ(sae["dashboards"].size(), 4u);
    for (const json& latent : sae["dashboards"]) {
      EXPECT_EQ(latent["raises"].size(), 10u);
      EXPECT_EQ(latent["lowers"].size(), 10u);
      EXPECT_EQ(latent["near"].size(), 8u);
    }
  }
  EXPECT_EQ(page["saes"][0]["target_l0"], 4);
  EXPECT_EQ(page["saes"][1]["target_l0"], 8);

  // Self-contained: nothing is loaded, and a policy says so; no other address than the name of SVG.
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
  for (const char* loads : {"<link", "src=", "@import", "url(", "fetch(", "XMLHttpRequest", "eval(", "innerHTML"})
    EXPECT_EQ(html.find(loads), std::string::npos) << loads;
  for (size_t at = 0; (at = html.find("://", at)) != html.npos; ++at)
    EXPECT_EQ(html.substr(at + 3, 10), "www.w3.org") << html.substr(at - 10, 60);
  for (const char* part : {"id=\"evaluation\"", "id=\"training\"", "id=\"latents\"", "prefers-color-scheme", "FVU"})
    EXPECT_NE(html.find(part), std::string::npos) << part;

  // The same run twice: the same page, byte for byte, but for its other name.
  ASSERT_EQ(run_binary(report(dir / "run", dir / "again.html")).status, 0);
  EXPECT_TRUE(read_bytes(dir / "again.html") == html);
  // Several folders, one of them a bare SAE without curves.
  const std::string sae = page["saes"][0]["path"];
  const Outcome both = run_binary({"report", dir / "run", sae, "--latents", "none", "--out", dir / "both.html"});
  ASSERT_EQ(both.status, 0) << both.err;
  const json two = data_of_page(read_bytes(dir / "both.html"));
  ASSERT_EQ(two["saes"].size(), 3u);
  EXPECT_EQ(two["saes"][2]["run"], 1);
  EXPECT_TRUE(two["saes"][2]["curves"].is_null());
  EXPECT_TRUE(two["saes"][2]["dashboards"].empty());
}

// A run that was killed: its curves, and what is missing. One that has not logged a line yet, likewise.
TEST(Report, OfARunThatHasNotFinished) {
  const TempFolder dir;
  const std::string run = dir / "run";
  train(run, {"--l0", "4"});
  fs::remove_all(run + "/layer_2");
  json file = read_json(run + "/run.json");
  file["finished"] = false;
  write_bytes(run + "/run.json", file.dump());
  write_bytes(run + "/train.jsonl", read_bytes(run + "/train.jsonl") + R"({"sae":"res.2/128/l0_4","st)");  // going on
  Outcome o = run_binary(report(run, dir / "page.html"));
  ASSERT_EQ(o.status, 0) << o.err;
  json page = data_of_page(read_bytes(dir / "page.html"));
  EXPECT_EQ(page["runs"][0]["finished"], false);
  EXPECT_NE(page["runs"][0]["notes"].dump().find("has not finished"), std::string::npos);
  EXPECT_EQ(page["saes"][0]["curves"]["loss"].size(), 6u);
  EXPECT_TRUE(page["saes"][0]["evaluation"].is_null());
  EXPECT_TRUE(page["saes"][0]["dashboards"].empty());

  write_bytes(run + "/train.jsonl", "");
  o = run_binary(report(run, dir / "page.html", {"--force"}));
  ASSERT_EQ(o.status, 0) << o.err;
  page = data_of_page(read_bytes(dir / "page.html"));
  EXPECT_NE(page["runs"][0]["notes"].dump().find("no line yet"), std::string::npos);
  EXPECT_TRUE(page["saes"][0]["curves"].is_null());

  write_bytes(run + "/train.jsonl", "{\"sae\"\n");
  expect_outcome(run_binary(report(run, dir / "page.html", {"--force"})), 1, {"train.jsonl:1"});
}

TEST(Report, BadInputNamesBothSides) {
  const TempFolder dir;
  const std::string page = dir / "page.html";
  fs::create_directories(dir / "empty");
  expect_outcome(run_binary({"report", dir / "nowhere"}), 1, {"nowhere", "no such file or folder"});
  expect_outcome(run_binary({"report", dir / "empty", "--out", page}), 1, {"empty", "no SAE", "run.json"});
  expect_outcome(run_binary(on_golden({"report", kGoldenSae, "--out", page, "--latents", "5,4096"})), 1,
                 {"params.npz", "0 to 4095", "4096"});
  expect_outcome(run_binary(on_golden({"report", kGoldenSae, "--out", page, "--latents", "best"})), 2, {"best"});
  // att of the demo model is wider, and it has no layer 7
  Words words = on_golden({"report", kGoldenSae, "--out", page});
  for (std::string& word : words)
    if (word == "res") word = "att";
  expect_outcome(run_binary(words), 1, {"width 192", "att", "demo", "256"});
  for (std::string& word : words)
    if (word == "3") word = "7";
  expect_outcome(run_binary(words), 2, {"--layer 7"});
  expect_outcome(run_binary({"report", kGoldenSae, "--model", "demo", "--out", page}), 2, {"--layer"});
  EXPECT_FALSE(fs::exists(page));
  write_bytes(page, "mine");
  expect_outcome(run_binary(on_golden({"report", kGoldenSae, "--out", page})), 1, {page, "--force"});
  EXPECT_EQ(read_bytes(page), "mine");
  expect_outcome(run_binary(on_golden({"report", kGoldenSae, "--format", "neuronpedia"})), 2, {"--out"});
  expect_outcome(run_binary(on_golden({"report", kGoldenSae, "--format", "neuronpedia", "--out", dir.path()})), 1,
                 {"not empty"});
}

// Data that are not there would be missed by the first pass: what is wrong with anything else is said before.
TEST(Report, RefusesBeforeThePasses) {
  const TempFolder dir;
  fs::create_directories(dir / "folder");
  write_bytes(dir / "file", "");
  fs::create_directories(dir / "run");  // that has begun
  write_bytes(dir / "run/run.json", R"({"format": 1, "finished": false, "folder": "", "options": {}})");
  const auto refused = [&](Words words, int status, const Words& parts) {
    words.insert(words.begin(), "report");
    words.insert(words.end(),
                 {"--model", "demo", "--layer", "3", "--site", "res", "--data", dir / "none.npy", "--quiet"});
    expect_outcome(run_binary(words), status, parts);
  };
  const std::string page = dir / "page.html";
  refused({kGoldenSae, "--out", page}, 1, {"none.npy"});
  refused({kGoldenSae, "--out", dir / "none/page.html"}, 1, {"none/page.html", "create the folder"});
  refused({kGoldenSae, "--out", dir / "folder", "--force"}, 1, {"folder", "directory"});
  for (const char* out : {"file", "file/np", "file/np/deeper"})
    refused({kGoldenSae, "--format", "neuronpedia", "--out", dir / out}, 1, {dir / "file", "is a file"});
  refused({kGoldenSae, dir / "run", "--format", "neuronpedia", "--out", dir / "np"}, 1,
          {dir / "run", "has no latents to write"});
  expect_outcome(run_binary({"report", kGoldenSae, test_data("formats/gemma_scope_2"), "--model", "demo", "--data",
                             dir / "none.npy", "--out", page, "--latents", "50"}),
                 1, {"gemma_scope_2", "0 to 39", "50"});
  EXPECT_FALSE(fs::exists(dir / "np"));
  EXPECT_FALSE(fs::exists(page));
}

// One pass of a run reads it to its end.
TEST(Report, StandardInputIsForOnePass) {
  const TempFolder dir;
  const auto run = [&](const Words& folders, const Words& more) {
    Words words{"report", "--model", "demo", "--layer",   "3",  "--site",  "res",   "--data",
                "-",      "--split", "all",  "--context", "16", "--quiet", "--out", dir / "page.html"};
    words.insert(words.begin() + 1, folders.begin(), folders.end());
    words.insert(words.end(), more.begin(), more.end());
    return run_binary(words, {}, "The dog sat on the mat, and the cat sat on the dog, and all was well with them.\n");
  };
  expect_outcome(run({kGoldenSae, kGoldenSae}, {}), 2, {"--data -", "--data FILE"});
  EXPECT_EQ(run({kGoldenSae}, {}).status, 0);
  EXPECT_EQ(run({kGoldenSae, kGoldenSae}, {"--latents", "none", "--force"}).status, 0);
}

// By their labels and by the links to their latents.
TEST(Report, SaesOfOneNameAreToldApart) {
  const TempFolder dir;
  for (const char* folder : {"p/run/average_l0_32", "p/run/average_l0_400", "q/run/average_l0_32"}) {
    fs::create_directories(dir / folder);
    fs::copy_file(kGoldenSae, dir / (std::string(folder) + "/params.npz"));
  }
  Words words{"report", dir / "p/run", dir / "q/run", dir / "q/run"};
  words.insert(words.end(), {"--latents", "none", "--layer", "3", "--site", "res", "--out", dir / "page.html"});
  const Outcome o = run_binary(words);
  ASSERT_EQ(o.status, 0) << o.err;
  const json page = data_of_page(read_bytes(dir / "page.html"));
  Words runs, saes;
  for (const json& run : page["runs"]) runs.push_back(run["name"]);
  for (const json& sae : page["saes"]) saes.push_back(sae["name"]);
  EXPECT_EQ(runs, (Words{"run (p)", "run (q)", "run (q)-2"}));
  EXPECT_EQ(saes, (Words{"res.3/4k (average_l0_32)", "res.3/4k (average_l0_400)", "res.3/4k", "res.3/4k"}));
}

// What would end the element is no part of it, and is the same once parsed.
TEST(Report, JsonCannotLeaveItsElement) {
  const nlohmann::ordered_json evil{{"a", "</script><script>alert(1)</script>"}, {"b", "<!--<script>"}, {"<", 1}};
  const std::string safe = json_for_html(evil);
  EXPECT_EQ(safe.find('<'), std::string::npos);
  EXPECT_EQ(nlohmann::ordered_json::parse(safe), evil);
}

}  // namespace
}  // namespace gsae::test
