// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <map>
#include <ostream>
#include <string>
#include <utility>
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

// What an answer has to keep to be of use, in seconds.
struct Budget {
  double response = 0, first_token = 0, per_token = 0;  // 0: any

  bool met_by(const Outcome& o) const {
    const auto within = [](double time, double most) { return most <= 0 || time <= most; };
    return o.ok() && within(o.response(), response) && within(o.to_first_token(), first_token) &&
           within(o.per_token(), per_token);
  }
};

// What came of a load, under one allocation or on one server.
struct Summary {
  std::string name;
  std::vector<double> responses, first_tokens, token_times;  // seconds, of requests that were answered
  std::vector<double> refusals;                              // likewise, of those that were refused
  std::size_t requests = 0, answered = 0, in_budget = 0;
  double seconds = 0;
  std::int64_t prompt_tokens = 0, tokens = 0;
  std::map<std::string, std::size_t> share;   // requests by the devices that answered them
  std::map<std::string, std::size_t> errors;  // requests that were not answered, by why

  static Summary of(std::string name, const std::vector<Outcome>& outcomes, const Budget& budget) {
    Summary s;
    s.name = std::move(name);
    s.requests = outcomes.size();
    for (const auto& o : outcomes) {
      s.seconds = std::max(s.seconds, o.end);
      if (o.refused) s.refusals.push_back(o.response());
      if (!o.ok()) {
        ++s.errors[o.error.empty() ? std::string(to_string(o.finish)) : o.error];
        continue;
      }
      ++s.answered;
      ++s.share[o.devices];
      s.prompt_tokens += o.prompt_tokens;
      s.tokens += o.tokens;
      s.in_budget += budget.met_by(o) ? 1 : 0;
      s.responses.push_back(o.response());
      if (o.first_token > 0) s.first_tokens.push_back(o.to_first_token());
      if (o.tokens > 1) s.token_times.push_back(o.per_token());
    }
    return s;
  }
  std::size_t failed() const { return requests - answered - refusals.size(); }
  double per_second(double count) const { return seconds > 0 ? count / seconds : 0; }
  double qps() const { return per_second(static_cast<double>(answered)); }
  double goodput() const { return static_cast<double>(in_budget) / static_cast<double>(requests); }
};

inline void print_table(const std::vector<Summary>& summaries) {
  int width = 12;
  for (const auto& s : summaries) width = std::max(width, static_cast<int>(s.name.size()));
  std::printf("%-*s  %8s  %9s  %9s  %8s  %8s  %7s  %8s\n", width, "", "QPS", "tokens/s", "in all/s", "answered",
              "refused", "failed", "goodput");
  for (const auto& s : summaries) {
    std::printf("%-*s  %8.1f  %9.1f  %9.1f  %8zu  %8zu  %7zu  %6.1f %%\n", width, s.name.c_str(), s.qps(),
                s.per_second(static_cast<double>(s.tokens)),
                s.per_second(static_cast<double>(s.prompt_tokens + s.tokens)), s.answered, s.refusals.size(),
                s.failed(), 100 * s.goodput());
  }
  std::printf("\n%-*s  %-12s  %8s  %8s  %8s  %8s  %8s\n", width, "", "ms", "50 %", "90 %", "95 %", "99 %", "most");
  for (const auto& [what, times] : {std::pair{"first token", &Summary::first_tokens},
                                    {"per token", &Summary::token_times},
                                    {"response", &Summary::responses},
                                    {"refusal", &Summary::refusals}}) {
    for (const auto& s : summaries) {
      if ((s.*times).empty()) continue;
      std::printf("%-*s  %-12s", width, s.name.c_str(), what);
      for (const double part : {0.5, 0.9, 0.95, 0.99, 1.0}) std::printf("  %8.2f", 1e3 * percentile(s.*times, part));
      std::printf("\n");
    }
  }
  std::printf(
      "\nQPS: requests answered, by the time from the first to the end of the last; tokens of answers, and of prompts\n"
      "and answers in all. Goodput: of all requests, those answered within the budgets.\n");
  for (const auto& s : summaries) {
    std::printf("%-*s", width, s.name.c_str());
    for (const auto& [devices, count] : s.share)
      std::printf("  %s: %.1f %%", devices.empty() ? "devices not told" : devices.c_str(),
                  100.0 * static_cast<double>(count) / static_cast<double>(s.answered));
    for (const auto& [error, count] : s.errors) std::printf("  %zu times: %s", count, error.c_str());
    std::printf("\n");
  }
}

void write_json(std::ostream& out, const std::vector<Summary>& summaries);

// The share of requests that were answered within a time, for each summary: left and up is better.
inline void write_svg(std::ostream& out, const std::vector<Summary>& summaries, const std::string& title) {
  constexpr double width = 640, height = 320, left = 60, bottom = 50, top = 50;
  constexpr const char* colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"};
  double longest = 1e-6;
  for (const auto& s : summaries) longest = std::max(longest, percentile(s.responses, 1));
  const auto x = [&](double seconds) { return left + width * seconds / longest; };
  const auto y = [&](double part) { return top + height * (1 - part); };
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << left + width + 170 << " "
      << top + height + bottom
      << "\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" "
         "fill=\"#ffffff\"/>\n<text x=\""
      << left << "\" y=\"24\" font-size=\"16\">" << title << "</text>\n";
  for (int i = 0; i <= 4; ++i) {
    const double part = i / 4.0;
    char label[64];
    std::snprintf(label, sizeof label, "%.0f %%", 100 * part);
    out << "<line x1=\"" << left << "\" x2=\"" << left + width << "\" y1=\"" << y(part) << "\" y2=\"" << y(part)
        << "\" stroke=\"#dddddd\"/>\n<text x=\"" << left - 8 << "\" y=\"" << y(part) + 4 << "\" text-anchor=\"end\">"
        << label << "</text>\n";
    std::snprintf(label, sizeof label, "%.0f ms", 1e3 * longest * part);
    out << "<text x=\"" << x(longest * part) << "\" y=\"" << top + height + 20 << "\" text-anchor=\"middle\">" << label
        << "</text>\n";
  }
  out << "<text x=\"" << left + width / 2 << "\" y=\"" << top + height + 42
      << "\" text-anchor=\"middle\">response time</text>\n";
  for (std::size_t i = 0; i < summaries.size(); ++i) {
    auto times = summaries[i].responses;
    std::ranges::sort(times);
    const auto* const colour = colours[i % std::size(colours)];
    out << "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"" << colour << "\" points=\"";
    for (std::size_t t = 0; t < times.size(); ++t)
      out << x(times[t]) << "," << y(static_cast<double>(t + 1) / static_cast<double>(summaries[i].requests)) << " ";
    const double row = top + 20 + 22 * static_cast<double>(i);
    out << "\"/>\n<line x1=\"" << left + width + 15 << "\" x2=\"" << left + width + 40 << "\" y1=\"" << row
        << "\" y2=\"" << row << "\" stroke-width=\"3\" stroke=\"" << colour << "\"/>\n<text x=\"" << left + width + 46
        << "\" y=\"" << row + 4 << "\">" << summaries[i].name << "</text>\n";
  }
  out << "</svg>\n";
}

}  // namespace stress
