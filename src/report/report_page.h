// The page of `kvant report` and `kvant eval --html`.
#pragma once

#include <string>
#include <vector>

#include "report/report_input.h"

namespace kvant {

/// One self-contained HTML page: no address in it is fetched, drawings are inline SVG, everything from the inputs is
/// escaped. The same inputs give the same bytes. What an input lacks is left out.
std::string ReportPage(const std::vector<ReportInput>& inputs, const std::string& kvant_version);

}  // namespace kvant
