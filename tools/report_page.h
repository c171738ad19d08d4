#pragma once

#include <string>
#include <vector>

#include "tools/dashboard_pass.h"
#include "tools/run_results.h"

namespace gsae {

// What a report is made of: each folder, and where its SAEs were looked at, what was seen.
struct ReportPart {
  RunResults results;
  std::vector<DashboardPass> pass;  // one; none: nobody looked. Of results.saes that have a file, in their order
};

// The self-contained page: tools/report/* with the data in it. It loads nothing, and its scripts evaluate no data.
std::string report_page(const std::vector<ReportPart>& parts);

// JSON within an element <script type="application/json">: no byte of it can end the element.
std::string json_for_html(const nlohmann::ordered_json& json);

}  // namespace gsae
