// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstdio>
#include <string>
#include <vector>

#include <troika/device/host/host_report.hpp>
#include <troika/device/host/topology.hpp>

#if defined(TROIKA_HAS_TOPOLOGY)
#include <troika/topology/host_topology.hpp>
#endif

// The cores of n devices: by NUMA node and cache where troika::topology is built, else in the order of the system.
inline std::vector<std::vector<int>> core_groups(int n) {
#if defined(TROIKA_HAS_TOPOLOGY)
  return troika::HostTopology::of_this_machine().groups(n);
#else
  std::vector<std::vector<int>> groups;
  for (const auto& device : troika::host_devices(n)) groups.push_back(device.options().cores);
  return groups;
#endif
}

// Which device runs where, and whether the system has huge pages.
inline void print_machine(const std::vector<std::vector<int>>& groups) {
  std::string text;
#if defined(TROIKA_HAS_TOPOLOGY)
  text = troika::HostTopology::of_this_machine().to_string(groups);
#else
  for (std::size_t i = 0; i < groups.size(); ++i) {
    text += "device " + std::to_string(i) + ": " + std::to_string(groups[i].size()) +
            " cores; troika::topology, which is left out, knows where\n";
  }
#endif
  const auto setting = troika::HostReport::of({}).huge_page_setting;
  std::printf("%shuge pages of the system: %s\n", text.c_str(), setting.empty() ? "none found" : setting.c_str());
}

// What the system gave to these devices. Of GPUs there is nothing to tell.
template <class D>
troika::HostReport report_of(const std::vector<D>& devices) {
  if constexpr (std::same_as<D, troika::HostDevice>)
    return troika::HostReport::of(devices);
  else
    return troika::HostReport::of({});
}

// What the system refused, a line each on stderr; nothing when all is as wished, but for the numbers that were asked
// for.
inline void print_report(const troika::HostReport& report, bool verbose = false) {
  std::fflush(stdout);
  if (verbose) std::printf("%s\n", report.to_string().c_str());
  for (const auto& note : report.notes()) std::fprintf(stderr, "note: %s\n", note.c_str());
}
