#pragma once

#include <string_view>

// The files of tools/report, put into the program when it is built (cmake/embed.cmake).
namespace gsae::report_assets {

extern const std::string_view kPage;     // page.html
extern const std::string_view kStyle;    // style.css
extern const std::string_view kCharts;   // charts.js
extern const std::string_view kLatents;  // latents.js
extern const std::string_view kApp;      // app.js

}  // namespace gsae::report_assets
