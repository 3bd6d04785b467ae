// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <istream>
#include <limits>
#include <string>

#include <troika/device/host/device.hpp>

namespace troika {

namespace detail {

inline constexpr std::uint64_t unknown_memory = std::numeric_limits<std::uint64_t>::max();

// The number after `name`, as the files of Linux have it: a line each.
inline std::uint64_t number_after(std::istream& lines, const std::string& name) {
  for (std::string word; lines >> word; lines.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    std::uint64_t number = 0;
    if (word == name && lines >> number) return number;
  }
  return unknown_memory;
}

// Bytes that can be had without swapping, of /proc/meminfo.
inline std::uint64_t memory_of_machine(std::istream& meminfo) {
  const auto kilobytes = number_after(meminfo, "MemAvailable:");
  return kilobytes > unknown_memory / 1024 ? unknown_memory : kilobytes * 1024;
}

// The same of a container (cgroup v2): files that are only cached can go. A limit that is not a number is none.
inline std::uint64_t memory_of_container(std::istream& max, std::istream& current, std::istream& stat) {
  std::uint64_t limit = 0, used = 0;
  if (!(max >> limit) || !(current >> used)) return unknown_memory;
  const auto files = number_after(stat, "file");
  used -= files == unknown_memory ? 0 : std::min(files, used);
  return limit - std::min(used, limit);
}

}  // namespace detail

// Bytes of memory that this process could still take, as far as the system says; else the largest number. All devices
// of a process share them.
inline std::uint64_t memory_available(const HostDevice&) {
  const std::string group = "/sys/fs/cgroup/memory.";
  std::ifstream meminfo("/proc/meminfo"), max(group + "max"), current(group + "current"), stat(group + "stat");
  return std::min(detail::memory_of_machine(meminfo), detail::memory_of_container(max, current, stat));
}

}  // namespace troika
