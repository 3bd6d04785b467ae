// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include <troika/core/error.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/system_cores.hpp>

namespace troika {

// The cores that the calling thread may run on: of each, its first hardware thread, in ascending order. Which of them
// are near to each other and to which memory is what troika::topology knows.
inline std::vector<int> available_cores() {
  std::vector<int> cores;
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core)
      if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
#endif
  if (cores.empty()) {
    const int count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    for (int core = 0; core < count; ++core) cores.push_back(core);
  }
  return detail::one_thread_a_core(cores);
}

// One device per group of cores. An empty group is a device of one thread that the system places.
inline std::vector<HostDevice> host_devices(std::vector<std::vector<int>> core_groups, HostOptions options = {}) {
  expects(!core_groups.empty(), "host_devices needs at least 1 group of cores");
  std::vector<HostDevice> devices;
  for (auto& cores : core_groups) {
    for (const int core : cores) {
      expects(core >= 0, [&] { return "a core number is at least 0, not " + std::to_string(core); });
    }
    options.cores = std::move(cores);
    devices.emplace_back(static_cast<int>(devices.size()), options);
  }
  return devices;
}

// n devices that share the cores of this process as evenly as whole cores allow, the first ones taking the remainder.
// With more devices than cores, each is one thread that the system places.
inline std::vector<HostDevice> host_devices(int n, HostOptions options = {}) {
  expects(n >= 1, [&] { return "host_devices needs at least 1 device, not " + std::to_string(n); });
  const auto cores = available_cores();
  const auto devices = static_cast<std::size_t>(n);
  std::vector<std::vector<int>> groups(devices);
  if (devices <= cores.size()) {
    std::size_t next = 0;
    for (std::size_t i = 0; i < devices; ++i) {
      const std::size_t share = cores.size() / devices + (i < cores.size() % devices ? 1 : 0);
      groups[i].assign(cores.begin() + static_cast<std::ptrdiff_t>(next),
                       cores.begin() + static_cast<std::ptrdiff_t>(next + share));
      next += share;
    }
  }
  return host_devices(std::move(groups), std::move(options));
}

}  // namespace troika
