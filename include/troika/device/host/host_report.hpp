// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <istream>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include <troika/device/host/device.hpp>

namespace troika {

namespace detail {

using Blocks = std::vector<std::span<const std::byte>>;

// The word in brackets of /sys/kernel/mm/transparent_hugepage/enabled: always, madvise or never. Empty: the system does
// not say.
inline std::string huge_page_setting(std::istream& enabled) {
  for (std::string word; enabled >> word;) {
    if (word.size() > 2 && word.front() == '[' && word.back() == ']') return word.substr(1, word.size() - 2);
  }
  return "";
}

struct HugeBytes {
  std::uint64_t wished = 0, got = 0;
};

// Of what was touched of these blocks, as /proc/self/smaps says by mapping. A mapping that other memory shares counts
// by the part of it that is theirs.
inline HugeBytes huge_bytes(std::istream& smaps, const Blocks& blocks) {
  HugeBytes sum;
  double part = 0, whole_pages = 0;  // of the mapping that the lines are about
  std::uint64_t touched = 0;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long long first = 0, last = 0;
    char mode[8];
    if (std::sscanf(line.c_str(), "%llx-%llx %4s", &first, &last, mode) == 3) {
      double own = 0;
      whole_pages = 0;
      for (const auto& block : blocks) {
        const auto begin = reinterpret_cast<std::uintptr_t>(block.data());
        if (begin < first || begin >= last) continue;
        own += static_cast<double>(block.size());
        whole_pages += static_cast<double>(block.size() / huge_page * huge_page);
      }
      part = std::min(1.0, own / static_cast<double>(last - first));
      touched = 0;
    } else if (part > 0) {
      unsigned long long kilobytes = 0;
      if (std::sscanf(line.c_str(), "Rss: %llu", &kilobytes) == 1) touched = kilobytes * 1024;
      if (std::sscanf(line.c_str(), "AnonHugePages: %llu", &kilobytes) == 1) {
        const auto bytes = [](double number) { return static_cast<std::uint64_t>(number); };
        const auto wished = bytes(std::min(whole_pages, part * static_cast<double>(touched)));
        sum.wished += wished;
        sum.got += std::min(wished, bytes(part * static_cast<double>(kilobytes) * 1024));
      }
    }
  }
  return sum;
}

struct NodeBytes {
  std::uint64_t own = 0, elsewhere = 0;
  int error = 0;  // errno, where the system does not say
};

// Where the touched pages of these blocks lie, by one page of every 2 MiB.
inline NodeBytes node_bytes(const Blocks& blocks, const std::vector<int>& nodes) {
  NodeBytes sum;
  if (nodes.empty()) return sum;
#if defined(__linux__)
  std::vector<void*> pages;
  for (const auto& block : blocks) {
    for (std::size_t at = 0; at < block.size(); at += huge_page)
      pages.push_back(const_cast<std::byte*>(block.data() + at));
  }
  std::vector<int> where(pages.size(), -ENOENT);
  if (!pages.empty() && syscall(SYS_move_pages, 0, pages.size(), pages.data(), nullptr, where.data(), 0) != 0)
    sum.error = errno;
  for (const int node : where) {
    if (node >= 0) (std::ranges::binary_search(nodes, node) ? sum.own : sum.elsewhere) += huge_page;
  }
#else
  sum.error = ENOSYS;
#endif
  return sum;
}

}  // namespace detail

// What devices asked of the system for speed, and what they got: a core for each thread, huge pages for large blocks of
// memory (weights, caches), and the node of their cores for them.
struct HostReport {
  struct Device {
    int index = 0, threads = 0;        // threads that have a core; 0 where the system places the only one
    std::vector<int> refused_cores{};  // where threads that started were not let
    std::vector<int> nodes{};          // of the cores; empty on machines of one node
    detail::HugeBytes huge{};
    detail::NodeBytes memory{};
    int bind_error = 0;  // errno of the refusal to bind memory to the nodes
  };

  std::string huge_page_setting{};  // always, madvise, never, or empty
  std::vector<Device> devices{};

  // As things are now: after threads ran and while weights are there. Reads /proc and /sys; not for each step.
  static HostReport of(const std::vector<HostDevice>& devices) {
    HostReport report;
    std::ifstream enabled("/sys/kernel/mm/transparent_hugepage/enabled");
    report.huge_page_setting = detail::huge_page_setting(enabled);
    for (const auto& device : devices) {
      std::ifstream smaps("/proc/self/smaps");
      const auto& memory = device.memory();
      const auto blocks = memory.large_blocks();
      report.devices.push_back({device.index(), static_cast<int>(device.team().cores().size()),
                                device.team().refused_cores(), memory.nodes(), detail::huge_bytes(smaps, blocks),
                                detail::node_bytes(blocks, memory.nodes()), memory.bind_error()});
    }
    return report;
  }

  // A line for each wish that the system refused, in part or altogether; none when all is as wished.
  std::vector<std::string> notes() const {
    std::vector<std::string> lines;
    const auto all = sums();
    if (!all.refused.empty()) {
      lines.push_back("threads could not be pinned to their cores (" + all.refused +
                      "), which this process may not use: they run where the system puts them");
    }
    if (all.huge.got < all.huge.wished / 10 * 9) {
      const std::string from = "/sys/kernel/mm/transparent_hugepage/enabled";
      lines.push_back(huge_page_setting == "never"
                          ? "huge pages are off (" + from + " says never): reading weights is slower"
                          : "only " + gigabytes(all.huge.got, all.huge.wished) +
                                " of weights and caches lie on huge pages" +
                                (huge_page_setting.empty() ? "" : " (" + from + " says " + huge_page_setting + ")") +
                                ": reading them is slower");
    }
    if (all.bind_error != 0) {
      lines.push_back("memory could not be bound to the NUMA nodes of its device (" + reason(all.bind_error) +
                      "): it lies where the device wrote it first");
    }
    if (all.memory.elsewhere > (all.memory.own + all.memory.elsewhere) / 100) {
      lines.push_back(
          gigabytes(all.memory.elsewhere, all.memory.own + all.memory.elsewhere) +
          " of weights and caches lie on other NUMA nodes than the cores that read them: reading them is slower");
    }
    return lines;
  }

  // One line with all numbers.
  std::string to_string() const {
    const auto all = sums();
    std::string text =
        "pinned " + std::to_string(all.threads - all.refusals) + " of " + std::to_string(all.threads) + " threads; ";
    text += gigabytes(all.huge.got, all.huge.wished) + " on huge pages (" +
            (huge_page_setting.empty() ? "no setting found" : huge_page_setting) + "); ";
    if (!all.nodes) return text + "one NUMA node";
    if (all.memory.error != 0)
      return text + "the system does not say on which NUMA nodes memory lies (" + reason(all.memory.error) + ")";
    return text + gigabytes(all.memory.own, all.memory.own + all.memory.elsewhere) + " on the NUMA node of the cores";
  }

 private:
  struct Sums {
    int threads = 0, refusals = 0, bind_error = 0;
    bool nodes = false;
    std::string refused;
    detail::HugeBytes huge;
    detail::NodeBytes memory;
  };
  Sums sums() const {
    Sums all;
    for (const auto& device : devices) {
      all.threads += device.threads;
      all.refusals += static_cast<int>(device.refused_cores.size());
      all.nodes |= !device.nodes.empty();
      if (!device.refused_cores.empty()) {
        all.refused += (all.refused.empty() ? "device " : "; device ") + std::to_string(device.index) + ":";
        for (const int core : device.refused_cores) all.refused += " " + std::to_string(core);
      }
      all.huge.wished += device.huge.wished, all.huge.got += device.huge.got;
      all.memory.own += device.memory.own, all.memory.elsewhere += device.memory.elsewhere;
      if (device.memory.error != 0) all.memory.error = device.memory.error;
      if (device.bind_error != 0) all.bind_error = device.bind_error;
    }
    return all;
  }
  static std::string gigabytes(std::uint64_t part, std::uint64_t whole) {
    char text[64];
    std::snprintf(text, sizeof text, "%.2f of %.2f GB", static_cast<double>(part) * 1e-9,
                  static_cast<double>(whole) * 1e-9);
    return text;
  }
  static std::string reason(int error) { return std::generic_category().message(error); }
};

}  // namespace troika
