// The scripts of a report's page, where there is a node to run them: what they draw of given data.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "tests/report_fixture.h"
#include "tools/report_page.h"

namespace gsae::test {
namespace {

using nlohmann::json;

SaeResult measured(const std::string& name, int64_t layer, double l0, double fvu) {
  return {.name = name,
          .file = {},
          .training = {{"site", "res"}, {"layer", layer}, {"latents", 4096}},
          .curves = nullptr,
          .evaluation = {{"l0", {{"value", l0}}}, {"fvu", {{"value", fvu}}}}};
}

using NamedRun = std::pair<std::string, std::vector<SaeResult>>;

std::string page_of(const std::vector<NamedRun>& runs) {
  std::vector<ReportPart> parts;
  for (const auto& [name, saes] : runs)
    parts.push_back({{.path = name, .name = name, .config = nullptr, .notes = {}, .saes = saes}, {}});
  return report_page(parts);
}

// What the page shows under node; link: the part of its address behind the page.
json drawn(const std::string& html, const std::string& link = "") {
  const TempFolder dir;
  write_bytes(dir / "page.html", html);
  const std::string line =
      fmt::format("node '{}' '{}' '{}' >'{}'", test_data("report_dom.js"), dir / "page.html", link, dir / "out");
  if (std::system(line.c_str()) != 0) throw Error("the page's script failed");
  return json::parse(read_bytes(dir / "out"));
}

struct ReportScript : testing::Test {
  void SetUp() override {
    if (std::system("node --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "there is no node";
  }
};

// A line is what only the L0 tells apart: neither two runs, nor layers of one colour.
TEST_F(ReportScript, ParetoLinesAreOfARunAndPlace) {
  std::vector<NamedRun> runs;
  for (const char* run : {"a", "b"}) {
    std::vector<SaeResult> saes;
    for (int64_t layer = 0; layer < 10; ++layer)
      for (const double l0 : {64.0, 16.0, 32.0})
        saes.push_back(measured(fmt::format("res.{}/4k/l0_{}", layer, l0), layer, l0, 1 / l0));
    runs.push_back({run, saes});
  }
  const json plot = drawn(page_of(runs))["plots"].at(0);
  EXPECT_EQ(plot["dots"], 60);
  ASSERT_EQ(plot["lines"].size(), 20u);
  for (const std::string line : plot["lines"]) EXPECT_EQ(std::count(line.begin(), line.end(), 'L'), 2) << line;
}

TEST_F(ReportScript, AnL0Of0HasNoPlaceOnALogAxis) {
  const auto page = page_of({{"a", {measured("x", 1, 0, 1), measured("y", 1, 8, 0.5), measured("z", 1, 16, 0.3)}}});
  const json plot = drawn(page)["plots"].at(0);
  EXPECT_EQ(plot["dots"], 2);
  EXPECT_EQ(plot["lines"].dump().find("Inf"), std::string::npos) << plot;
}

// The same of a dead latent as `features` prints; and a link opens the SAE that it is of.
TEST_F(ReportScript, ADeadLatentHasItsTokensAndNeighbours) {
  const auto [begin, end] =
      std::pair(std::string("<script type=\"application/json\" id=\"data\">"), std::string("</script>"));
  const std::string html = page_of({{"a", {measured("x", 1, 8, 0.5), measured("y", 1, 9, 0.5)}}});
  const std::string data = between(html, begin, end);
  json page = json::parse(data);
  page["tokens"] = {"raised", "lowered"};
  for (json& sae : page["saes"]) {
    sae["seen"] = {{"tokens", 100}, {"dead", 1}, {"split", "all"}};
    sae["dashboards"] = {{{"id", 7},
                          {"count", 0},
                          {"max", 0},
                          {"mean", 0},
                          {"scale", 0},
                          {"histogram", json::array()},
                          {"top", json::array()},
                          {"bands", json::array()},
                          {"raises", {{0, 1.5}}},
                          {"lowers", {{1, -1.5}}},
                          {"near", {{4095, 0.5}}}}};
  }
  page["saes"][1]["dashboards"][0]["near"] = {{4094, 0.5}};
  std::string edited = html;
  edited.replace(html.find(data), data.size(), page.dump());
  for (const auto& [link, near] : {std::pair("#x/7", "4095"), {"#y/7", "4094"}}) {
    const std::string opened = drawn(edited, link)["opened"];
    for (const char* part : {"Dead", "raised", "lowered", near})
      EXPECT_NE(opened.find(part), std::string::npos) << part << " is not in " << opened;
  }
}

}  // namespace
}  // namespace gsae::test
