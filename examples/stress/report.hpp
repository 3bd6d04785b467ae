// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "load.hpp"

namespace stress {

// The value that `part` of them do not exceed (nearest rank); 0 of none.
inline double percentile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const auto rank = static_cast<std::size_t>(std::ceil(part * static_cast<double>(values.size())));
  return values[std::clamp<std::size_t>(rank, 1, values.size()) - 1];
}

// What came of a load, under one allocation.
struct Summary {
  std::string allocation;
  std::vector<double> responses, first_tokens, token_times;  // seconds, of requests that were answered
  std::size_t requests = 0, answered = 0, refused = 0, failed = 0, in_time = 0;
  double seconds = 0;
  std::int64_t tokens = 0;
  std::map<std::string, std::size_t> share;  // requests by the devices that answered them

  // `budget`: seconds in which a response is of use.
  static Summary of(std::string allocation, const std::vector<Outcome>& outcomes, double budget) {
    Summary s;
    s.allocation = std::move(allocation);
    s.requests = outcomes.size();
    for (const auto& o : outcomes) {
      s.seconds = std::max(s.seconds, o.end);
      s.refused += o.refused ? 1 : 0;
      s.failed += !o.refused && !o.ok() ? 1 : 0;
      if (!o.ok()) continue;
      ++s.answered;
      ++s.share[o.devices];
      s.tokens += o.tokens;
      s.in_time += o.response() <= budget ? 1 : 0;
      s.responses.push_back(o.response());
      if (o.tokens > 0) s.first_tokens.push_back(o.first_token - o.begin);
      if (o.tokens > 1) s.token_times.push_back((o.end - o.first_token) / static_cast<double>(o.tokens - 1));
    }
    return s;
  }
  double qps() const { return seconds > 0 ? static_cast<double>(answered) / seconds : 0; }
};

inline void print_table(const std::vector<Summary>& summaries, double budget) {
  std::printf("%-12s  %7s  %8s  %8s  %8s  %7s  %23s  %15s  %23s  %s\n", "allocation", "QPS", "tokens/s", "answered", "refused", "failed",
              "first token ms 50/95/99", "ms/token 50/95", "response ms 50/95/99", "in time");
  for (const auto& s : summaries) {
    const auto ms = [](const std::vector<double>& values, double part) { return 1e3 * percentile(values, part); };
    std::printf("%-12s  %7.1f  %8.0f  %8zu  %8zu  %7zu  %7.1f %7.1f %7.1f  %7.2f %7.2f  %7.1f %7.1f %7.1f  %6.1f %%\n", s.allocation.c_str(),
                s.qps(), static_cast<double>(s.tokens) / s.seconds, s.answered, s.refused, s.failed, ms(s.first_tokens, 0.5),
                ms(s.first_tokens, 0.95), ms(s.first_tokens, 0.99), ms(s.token_times, 0.5), ms(s.token_times, 0.95), ms(s.responses, 0.5),
                ms(s.responses, 0.95), ms(s.responses, 0.99), 100.0 * static_cast<double>(s.in_time) / static_cast<double>(s.requests));
  }
  std::printf("\nQPS: requests answered, by the time from the first to the end of the last. In time: of all, within %.0f ms.\n", 1e3 * budget);
  for (const auto& s : summaries) {
    std::printf("%-12s ", s.allocation.c_str());
    for (const auto& [devices, count] : s.share)
      std::printf("  %s: %.1f %%", devices.c_str(), 100.0 * static_cast<double>(count) / static_cast<double>(s.answered));
    std::printf("\n");
  }
}

// The share of requests that were answered within a time, for each allocation: left and up is better.
inline void write_svg(std::ostream& out, const std::vector<Summary>& summaries, const std::string& title) {
  constexpr double width = 640, height = 320, left = 60, bottom = 50, top = 50;
  constexpr const char* colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"};
  double longest = 1e-6;
  for (const auto& s : summaries) longest = std::max(longest, percentile(s.responses, 1));
  const auto x = [&](double seconds) { return left + width * seconds / longest; };
  const auto y = [&](double part) { return top + height * (1 - part); };
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << left + width + 170 << " " << top + height + bottom
      << "\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"" << left
      << "\" y=\"24\" font-size=\"16\">" << title << "</text>\n";
  for (int i = 0; i <= 4; ++i) {
    const double part = i / 4.0;
    char label[64];
    std::snprintf(label, sizeof label, "%.0f %%", 100 * part);
    out << "<line x1=\"" << left << "\" x2=\"" << left + width << "\" y1=\"" << y(part) << "\" y2=\"" << y(part)
        << "\" stroke=\"#dddddd\"/>\n<text x=\"" << left - 8 << "\" y=\"" << y(part) + 4 << "\" text-anchor=\"end\">" << label << "</text>\n";
    std::snprintf(label, sizeof label, "%.0f ms", 1e3 * longest * part);
    out << "<text x=\"" << x(longest * part) << "\" y=\"" << top + height + 20 << "\" text-anchor=\"middle\">" << label << "</text>\n";
  }
  out << "<text x=\"" << left + width / 2 << "\" y=\"" << top + height + 42 << "\" text-anchor=\"middle\">response time</text>\n";
  for (std::size_t i = 0; i < summaries.size(); ++i) {
    auto times = summaries[i].responses;
    std::ranges::sort(times);
    const auto* const colour = colours[i % std::size(colours)];
    out << "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"" << colour << "\" points=\"";
    for (std::size_t t = 0; t < times.size(); ++t)
      out << x(times[t]) << "," << y(static_cast<double>(t + 1) / static_cast<double>(summaries[i].requests)) << " ";
    const double row = top + 20 + 22 * static_cast<double>(i);
    out << "\"/>\n<line x1=\"" << left + width + 15 << "\" x2=\"" << left + width + 40 << "\" y1=\"" << row << "\" y2=\"" << row
        << "\" stroke-width=\"3\" stroke=\"" << colour << "\"/>\n<text x=\"" << left + width + 46 << "\" y=\"" << row + 4 << "\">"
        << summaries[i].allocation << "</text>\n";
  }
  out << "</svg>\n";
}

}  // namespace stress
