// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include <troika/models/split.hpp>

// Who holds what, as an aligned table.
inline void print_plan(const std::vector<troika::models::PlanRow>& plan, int ranks) {
  std::printf("  %-20s %-14s", "matrix", "shape");
  for (int r = 0; r < ranks; ++r) std::printf(" %14s", ("rank " + std::to_string(r)).c_str());
  std::printf("  split\n");
  std::vector<std::int64_t> held(static_cast<std::size_t>(ranks));
  for (const auto& row : plan) {
    const auto name = row.tensor + (row.copies > 1 ? " x" + std::to_string(row.copies) : "");
    std::printf("  %-20s %-14s", name.c_str(), row.shape.to_string().c_str());
    for (int r = 0; r < ranks; ++r) {
      const auto range = row.partition[r];
      const auto text = range.empty() ? "-" : std::to_string(range.begin) + ".." + std::to_string(range.end - 1);
      std::printf(" %14s", text.c_str());
      held[static_cast<std::size_t>(r)] += row.elements_of(r);
    }
    std::printf("  %s%s\n", row.split_dim == 0 ? "rows" : "columns", row.reduced ? ", then all_reduce" : "");
  }
  std::printf("  %-20s %-14s", "elements held", "");
  for (const auto elements : held) std::printf(" %14lld", static_cast<long long>(elements));
  std::printf("\n");
}

// The split of one block as a picture: each matrix in its proportions, each rank's part in its colour.
class SplitPicture {
 public:
  SplitPicture(const std::vector<troika::models::PlanRow>& plan, int ranks, const std::string& title) : ranks_(ranks) {
    text(20, 28, title, "title");
    double x = 20;
    x = column(plan, x, {"attention query", "attention key", "attention value"}, "my heads");
    x = column(plan, x, {"attention output"}, "all_reduce");
    x = column(plan, x, {"mlp gate", "mlp up"}, "my columns");
    x = column(plan, x, {"mlp down"}, "all_reduce");
    width_ = x;
    for (int r = 0; r < ranks; ++r) {
      const double at = 20 + 92.0 * (r % 8), line = height_ + 24 + 22.0 * (r / 8);
      box(at, line - 11, 14, 14, r);
      text(at + 20, line, "rank " + std::to_string(r), "label");
    }
    height_ += 40 + 22.0 * ((ranks - 1) / 8);
  }

  // False when the file cannot be written.
  bool write(const std::string& path) const {
    std::ofstream file(path);
    file
        << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << width_ << ' ' << height_
        << "\" role=\"img\">\n"
        << "<style>text{font:12px "
           "sans-serif;fill:#222}.title{font-size:16px;font-weight:bold}.note{font-size:11px;fill:#666}"
           "rect{stroke:#fff;stroke-width:.5}.arrow{stroke:#666;fill:none;stroke-width:1.5}.back{fill:#fff;stroke:none}"
           "@media(prefers-color-scheme:dark){text{fill:#eee}.note{fill:#aaa}rect{stroke:#111}.back{fill:#111}}</"
           "style>\n"
        << "<rect class=\"back\" width=\"100%\" height=\"100%\"/>\n"
        << body_ << "</svg>\n";
    return static_cast<bool>(file.flush());
  }

 private:
  double column(const std::vector<troika::models::PlanRow>& plan, double x, const std::vector<std::string>& names,
                const std::string& then) {
    double y = 60, widest = 0;
    for (const auto& name : names) {
      const auto row = std::ranges::find(plan, name, &troika::models::PlanRow::tensor);
      if (row == plan.end()) continue;
      const double scale = 110.0 / static_cast<double>(std::max({row->shape[0], row->shape[1], std::int64_t{1}}));
      const double height = std::max(16.0, scale * static_cast<double>(row->shape[0]));
      const double width = std::max(16.0, scale * static_cast<double>(row->shape[1]));
      text(x, y - 6, name, "label");
      const bool rows = row->split_dim == 0;
      const double unit = (rows ? height : width) / static_cast<double>(row->partition.extent());
      for (int r = 0; r < ranks_; ++r) {
        const auto range = row->partition[r];
        const double begin = unit * static_cast<double>(range.begin), size = unit * static_cast<double>(range.size());
        if (range.empty()) continue;
        rows ? box(x, y + begin, width, size, r) : box(x + begin, y, size, height, r);
      }
      text(x, y + height + 14, std::to_string(row->shape[0]) + " x " + std::to_string(row->shape[1]), "note");
      y += height + 44;
      widest = std::max({widest, width, 100.0});
    }
    height_ = std::max(height_, y);
    const double end = x + widest + 12;
    body_ += "<path class=\"arrow\" d=\"M" + std::to_string(end) + " 115h52m-7 -5l7 5l-7 5\"/>\n";
    text(end, 104, then, "note");
    return end + 76;
  }

  void box(double x, double y, double width, double height, int rank) {
    const int hue = (205 + rank * 137) % 360;  // golden angle: neighbours differ
    body_ += "<rect x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) + "\" width=\"" + std::to_string(width) +
             "\" height=\"" + std::to_string(height) + "\" fill=\"hsl(" + std::to_string(hue) + ",55%,52%)\"/>\n";
  }
  void text(double x, double y, const std::string& what, const char* kind) {
    body_ += "<text class=\"" + std::string(kind) + "\" x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) +
             "\">" + what + "</text>\n";
  }

  int ranks_;
  double width_ = 0, height_ = 0;
  std::string body_;
};
