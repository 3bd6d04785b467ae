// SPDX-License-Identifier: Apache-2.0
#include <troika/topology/host_topology.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>

namespace troika {
namespace {

using Cores = std::span<const HostCore>;
using Groups = std::vector<Cores>;

// Neighbours that have the same number.
std::vector<Cores> runs(Cores cores, int HostCore::*number) {
  std::vector<Cores> found;
  for (std::size_t first = 0, last; first < cores.size(); first = last) {
    for (last = first; last < cores.size() && cores[last].*number == cores[first].*number;) ++last;
    found.push_back(cores.subspan(first, last - first));
  }
  return found;
}

// How many of n devices each part gets, n being at least their number: one each, then the next goes where a device has
// most cores. No part gets more than it has cores.
std::vector<std::size_t> deal(const std::vector<Cores>& parts, std::size_t n) {
  std::vector<std::size_t> devices(parts.size(), 1);
  for (std::size_t left = n - parts.size(); left > 0; --left) {
    std::size_t most = 0;
    for (std::size_t i = 1; i < parts.size(); ++i) {
      if (parts[i].size() * devices[most] > parts[most].size() * devices[i]) most = i;
    }
    ++devices[most];
  }
  return devices;
}

// The first ones take the remainder.
void cut(Cores cores, std::size_t n, Groups& groups) {
  std::size_t next = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t share = cores.size() / n + (i < cores.size() % n ? 1 : 0);
    groups.push_back(cores.subspan(next, share));
    next += share;
  }
}

// Caches stay whole where sizes differ by 1 at most all the same.
void cut_by_caches(Cores node, std::size_t n, Groups& groups) {
  const auto caches = runs(node, &HostCore::cache);
  if (n < caches.size()) return cut(node, n, groups);
  const auto devices = deal(caches, n);
  std::size_t smallest = node.size(), largest = 0;
  for (std::size_t i = 0; i < caches.size(); ++i) {
    smallest = std::min(smallest, caches[i].size() / devices[i]);
    largest = std::max(largest, (caches[i].size() + devices[i] - 1) / devices[i]);
  }
  if (largest > smallest + 1) return cut(node, n, groups);
  for (std::size_t i = 0; i < caches.size(); ++i) cut(caches[i], devices[i], groups);
}

// Whole nodes for fewer devices than nodes, as evenly as they can be joined: the sum of the squares of the sizes is
// least. Of equals, the first devices take more.
void join(const std::vector<Cores>& nodes, std::size_t n, Groups& groups) {
  // least[k][i]: of k devices on the nodes from i on; ends[k][i]: where the nodes of the first of them end.
  const std::size_t count = nodes.size();
  std::vector least(n + 1, std::vector<std::size_t>(count + 1, SIZE_MAX)), ends = least;
  least[0][count] = 0;
  for (std::size_t k = 1; k <= n; ++k) {
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t size = 0;
      for (std::size_t end = i + 1; end <= count; ++end) {
        size += nodes[end - 1].size();
        if (least[k - 1][end] == SIZE_MAX || size * size + least[k - 1][end] > least[k][i]) continue;
        least[k][i] = size * size + least[k - 1][end];
        ends[k][i] = end;
      }
    }
  }
  std::size_t begin = 0;
  for (std::size_t k = n; k > 0; --k) {
    const std::size_t end = ends[k][begin];
    groups.emplace_back(nodes[begin].data(), nodes[end - 1].data() + nodes[end - 1].size());
    begin = end;
  }
}

std::string list(std::vector<int> numbers) {
  std::ranges::sort(numbers);
  std::string text;
  for (std::size_t first = 0, last; first < numbers.size(); first = last) {
    for (last = first + 1; last < numbers.size() && numbers[last] == numbers[last - 1] + 1;) ++last;
    text += (text.empty() ? "" : ",") + std::to_string(numbers[first]);
    if (last > first + 1) text += "-" + std::to_string(numbers[last - 1]);
  }
  return text;
}

std::string plural(std::size_t count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

}  // namespace

HostTopology::HostTopology(std::vector<HostCore> cores, const std::vector<HostNode>& nodes) : cores_(std::move(cores)) {
  for (const auto& node : nodes) {
    auto known = std::ranges::find(nodes_, node.number, &HostNode::number);
    if (known == nodes_.end()) known = nodes_.insert(nodes_.end(), node);
    ++known->cores;
  }
  std::ranges::stable_sort(cores_, {}, [this](const HostCore& core) {  // nodes as they come first
    return std::ranges::find(nodes_, core.node, &HostNode::number) - nodes_.begin();
  });
}

std::vector<std::vector<int>> HostTopology::groups(int n, HardwareThreads threads) const {
  expects(n >= 1, [&] { return "cores are dealt to at least 1 device, not " + std::to_string(n); });
  const auto devices = static_cast<std::size_t>(n);
  std::vector<std::vector<int>> result(devices);
  if (devices > cores_.size()) return result;
  Groups groups;
  const auto nodes = runs(cores_, &HostCore::node);
  if (devices < nodes.size()) {
    join(nodes, devices, groups);
  } else {
    const auto dealt = deal(nodes, devices);
    for (std::size_t i = 0; i < nodes.size(); ++i) cut_by_caches(nodes[i], dealt[i], groups);
  }
  for (std::size_t i = 0; i < devices; ++i) {
    for (const auto& core : groups[i]) {
      const auto end = threads == HardwareThreads::all ? core.threads.end() : core.threads.begin() + 1;
      result[i].insert(result[i].end(), core.threads.begin(), end);
    }
  }
  return result;
}

std::string HostTopology::to_string(const std::vector<std::vector<int>>& groups) const {
  std::string text;
  for (const auto& node : nodes_) {
    char memory[32];
    std::snprintf(memory, sizeof memory, "%.1f GB", static_cast<double>(node.memory) * 1e-9);
    text += "NUMA node " + std::to_string(node.number) + ": " + plural(static_cast<std::size_t>(node.cores), "core") +
            ", " + memory + "\n";
  }
  for (std::size_t i = 0; i < groups.size(); ++i) {
    text += "device " + std::to_string(i) + ": ";
    std::vector<int> nodes;
    std::size_t cores = 0;
    for (const auto& core : cores_) {
      const bool own = std::ranges::any_of(
          core.threads, [&](int thread) { return std::ranges::find(groups[i], thread) != groups[i].end(); });
      if (!own) continue;
      ++cores;
      if (std::ranges::find(nodes, core.node) == nodes.end()) nodes.push_back(core.node);
    }
    text += groups[i].empty()
                ? std::string("one thread, wherever the system puts it\n")
                : plural(cores, "core") + " of node " + list(nodes) + ", hardware threads " + list(groups[i]) + "\n";
  }
  return text;
}

}  // namespace troika
