// SPDX-License-Identifier: Apache-2.0
//
//   tasks --> pick() --> device 0          Which device takes a task that cannot be split? Four policies, one of the three
//                    \-> device 1          devices failing every task that it gets. Each task falls back to the next best
//                    \-> device 2 (fails)  device; a device that fails again is in quarantine for a while.
#include <cstdio>
#include <string>
#include <vector>

#include <troika/troika.hpp>

// Your own policy is a type with two functions.
struct LastDeviceFirst {
  std::vector<double> shares(std::span<const troika::DeviceLoad> loads) {
    return std::vector<double>(loads.size(), 1.0);
  }
  int pick(std::span<const troika::DeviceLoad> candidates) { return static_cast<int>(candidates.size()) - 1; }
};

template <class Allocation>
bool show(const char* name, Allocation allocation) {
  int warnings = 0;
  troika::SchedulerOptions options;
  options.log = troika::Log([&](troika::LogLevel, std::string_view) { ++warnings; });
  troika::TaskScheduler scheduler{troika::host_devices(3), std::move(allocation), options};

  std::vector<troika::Task<int>> tasks;
  for (int i = 0; i < 30; ++i) {
    tasks.push_back(scheduler.submit([i](troika::HostDevice& device) {
      if (device.index() == 2) throw std::runtime_error("the device is broken");
      return i * i;
    }));
  }
  int right = 0, by_device[3] = {};
  for (int i = 0; i < 30; ++i) {
    right += tasks[static_cast<std::size_t>(i)].get() == i * i;
    ++by_device[tasks[static_cast<std::size_t>(i)].device()];
  }
  std::printf("%-20s %8d %8d %8d %8d %10d\n", name, by_device[0], by_device[1], by_device[2], right, warnings);
  return right == 30 && by_device[2] == 0;
}

int main() {
  std::printf("%-20s %8s %8s %8s %8s %10s\n", "tasks done by", "device 0", "device 1", "device 2", "right",
              "log lines");
  bool right = show("StaticAllocation", troika::StaticAllocation{});
  right &= show("RoundRobin", troika::RoundRobin{});
  right &= show("RandomAllocation", troika::RandomAllocation{7});
  right &= show("DynamicAllocation", troika::DynamicAllocation{});
  right &= show("your own", LastDeviceFirst{});
  std::printf("\nNext: generate, where a real model answers.\n");
  return right ? 0 : 1;
}
