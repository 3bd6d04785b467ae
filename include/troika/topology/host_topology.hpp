// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace troika {

// A core that a program may run on.
struct HostCore {
  std::vector<int> threads;  // its hardware threads, by the numbers of the system; at least one
  int node = 0;              // its NUMA node, by the number of the system
  int cache = 0;             // cores of one number share their last-level cache; -1: none is known
};

// A NUMA node that such cores are in.
struct HostNode {
  int number = 0;
  int cores = 0;             // that a program may run on
  std::uint64_t memory = 0;  // bytes, of the whole node
};

enum class HardwareThreads { one_a_core, all };

// The cores of a machine, by what they share. A value: it does not follow what changes later.
class HostTopology {
 public:
  // The cores that the calling thread may run on.
  static HostTopology of_this_machine();

  // A machine that need not be here, in the words of hwloc's synthetic descriptions: "numa:2 l3:1 core:4 pu:2" has two
  // NUMA nodes with four cores of two threads each. `allowed`: the hardware threads that may be used, such as "0-3,8";
  // empty: all.
  static HostTopology of(const std::string& description, const std::string& allowed = "");

  // Node after node; neighbours in this order share more than others do.
  const std::vector<HostCore>& cores() const { return cores_; }
  const std::vector<HostNode>& nodes() const { return nodes_; }

  // The cores of n devices, for host_devices(): those of a device are neighbours. Every NUMA node gets devices in
  // proportion to its cores, at least one, so that no device is in two nodes; where there are fewer devices than nodes,
  // a device has whole nodes. Inside of a node sizes differ by 1 at most, and caches stay whole where that allows it.
  // Empty groups where there are more devices than cores.
  std::vector<std::vector<int>> groups(int n, HardwareThreads threads = HardwareThreads::one_a_core) const;

  // The nodes with their cores and memory, and which device has which cores of which node; a line each.
  std::string to_string(const std::vector<std::vector<int>>& groups) const;

 private:
  explicit HostTopology(std::vector<HostCore> cores, const std::vector<HostNode>& nodes);

  std::vector<HostCore> cores_;
  std::vector<HostNode> nodes_;
};

}  // namespace troika
