// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace troika::detail {

inline const std::string system_devices = "/sys/devices/system/";  // where Linux describes cores and nodes

// "0-3,8,10-11", as files of Linux list cores and nodes, in ascending order. Empty for what is no such list.
inline std::vector<int> parse_list(const std::string& text) {
  constexpr int most = 1 << 16;  // a line that lies must not take all memory
  std::vector<int> numbers;
  std::istringstream parts(text.substr(0, text.find_first_of(" \t\n")));
  for (std::string part; std::getline(parts, part, ',');) {
    int first = 0;
    const char* const end = part.data() + part.size();
    auto read = std::from_chars(part.data(), end, first);
    int last = first;
    if (read.ec == std::errc() && read.ptr != end && *read.ptr == '-') read = std::from_chars(read.ptr + 1, end, last);
    if (read.ec != std::errc() || read.ptr != end || first < 0 || last < first || last >= most) return {};
    for (int i = first; i <= last; ++i) numbers.push_back(i);
  }
  std::ranges::sort(numbers);
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

inline std::vector<int> list_in(const std::string& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return parse_list(line);
}

// Of these hardware threads, in ascending order, the first one of each core.
inline std::vector<int> one_thread_a_core(const std::vector<int>& threads, const std::string& root = system_devices) {
  std::vector<int> cores;
  for (const int thread : threads) {
    const auto siblings = list_in(root + "cpu/cpu" + std::to_string(thread) + "/topology/thread_siblings_list");
    const bool taken =
        std::ranges::any_of(siblings, [&](int other) { return std::ranges::binary_search(cores, other); });
    if (!taken) cores.push_back(thread);
  }
  return cores;
}

// The NUMA nodes with memory that these cores are in, in ascending order. Empty where there is only one node, or where
// the system does not say.
inline std::vector<int> nodes_of(const std::vector<int>& cores, const std::string& root = system_devices) {
  const auto all = list_in(root + "node/has_memory");
  std::vector<int> nodes;
  if (cores.empty() || all.size() < 2) return nodes;
  for (const int node : all) {
    const auto own = list_in(root + "node/node" + std::to_string(node) + "/cpulist");
    if (std::ranges::any_of(cores, [&](int core) { return std::ranges::binary_search(own, core); }))
      nodes.push_back(node);
  }
  return nodes;
}

}  // namespace troika::detail
