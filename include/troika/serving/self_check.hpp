// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace troika::serving {

// How long devices and the links between them take for something tiny that is always the same: each the best of a few
// tries, so that one moment of other programs does not count.
struct SelfCheck {
  struct Link {
    std::size_t from, to;  // devices; a message takes as long in both directions
    double seconds = 0;
  };
  std::vector<std::string> names{};  // of devices; none where nothing was checked yet
  std::vector<double> kernels{};     // gelu of 65,536 numbers on each device, all at once
  std::vector<Link> links{};         // 4 bytes one way, each pair alone
  double all_reduce_seconds = 0;     // 4 KiB over all
  std::chrono::system_clock::time_point at{};

  static SelfCheck of(std::vector<std::string> device_names) {
    SelfCheck check{.names = std::move(device_names)};
    check.kernels.resize(check.names.size());
    for (std::size_t a = 0; a < check.names.size(); ++a) {
      for (std::size_t b = a + 1; b < check.names.size(); ++b) check.links.push_back({a, b});
    }
    return check;
  }
};

// A line for each device, with a column for each link.
std::string table_of(const SelfCheck& check);

// A line for what is far too slow: a device beside the fastest one, a message or a sum in any case.
std::vector<std::string> complaints_about(const SelfCheck& check);

}  // namespace troika::serving
