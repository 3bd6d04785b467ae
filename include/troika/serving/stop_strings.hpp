// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace troika::serving {

// Lets text through up to the first stop string, however the text is cut into pieces. What might be the beginning of a
// stop string is held back until it is none: nothing of one is ever shown. Pieces and stop strings that are whole UTF-8
// give pieces that are.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops = {}) : stops_(std::move(stops)) {
    std::erase(stops_, std::string());
  }

  // The text that can be shown now, perhaps none; nothing more once one was found.
  std::string add(std::string_view piece) {
    if (found_) return {};
    held_ += piece;
    auto end = std::string::npos;
    for (const auto& stop : stops_) end = std::min(end, held_.find(stop));
    found_ = end != std::string::npos;
    if (!found_) {
      end = held_.size();
      for (const auto& stop : stops_) end = std::min(end, held_.size() - begun(stop));
    }
    std::string shown = held_.substr(0, end);
    held_.erase(0, found_ ? held_.size() : end);
    return shown;
  }
  // What is still held back, at the end of the text.
  std::string finish() { return std::exchange(held_, {}); }
  bool found() const { return found_; }

 private:
  // How much of the stop string is at the end of the text.
  std::size_t begun(const std::string& stop) const {
    for (auto length = std::min(stop.size() - 1, held_.size()); length > 0; --length) {
      if (held_.compare(held_.size() - length, length, stop, 0, length) == 0) return length;
    }
    return 0;
  }

  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace troika::serving
