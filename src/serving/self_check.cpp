// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/self_check.hpp>

#include <algorithm>
#include <cstdio>

namespace troika::serving {
namespace {

constexpr double slow_device = 4;      // times the fastest
constexpr double slow_message = 0.01;  // seconds, of a message or a sum

std::string microseconds(double seconds, int width = 0) {
  char text[40];
  std::snprintf(text, sizeof text, "%*.1f", width, 1e6 * seconds);
  return text;
}
std::string padded(const std::string& text, std::size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

}  // namespace

std::string table_of(const SelfCheck& check) {
  constexpr std::size_t width = 9;
  std::string text = "device      kernel  message to";
  text += "\n" + std::string(20, ' ');
  for (const auto& name : check.names) text += padded(name, width);
  text += "   (microseconds)\n";
  for (std::size_t a = 0; a < check.names.size(); ++a) {
    auto name = check.names[a];
    name.resize(std::max<std::size_t>(name.size(), 10), ' ');
    text += name + microseconds(check.kernels[a], 10);
    for (std::size_t b = 0; b < check.names.size(); ++b) {
      const auto link = std::ranges::find_if(
          check.links, [&](const auto& l) { return l.from == std::min(a, b) && l.to == std::max(a, b); });
      text += link == check.links.end() ? padded("-", width) : microseconds(link->seconds, width);
    }
    text += "\n";
  }
  return text + "sum of 4 KiB over all: " + microseconds(check.all_reduce_seconds) + "\n";
}

std::vector<std::string> complaints_about(const SelfCheck& check) {
  std::vector<std::string> list;
  if (check.names.empty()) return list;
  const double fastest = *std::ranges::min_element(check.kernels);
  for (std::size_t i = 0; i < check.names.size(); ++i) {
    if (check.kernels[i] > slow_device * fastest)
      list.push_back(check.names[i] + " takes " + microseconds(check.kernels[i]) +
                     " microseconds for what the fastest device does in " + microseconds(fastest));
  }
  for (const auto& link : check.links) {
    if (link.seconds > slow_message)
      list.push_back("a message from " + check.names[link.from] + " to " + check.names[link.to] + " takes " +
                     microseconds(link.seconds) + " microseconds");
  }
  if (check.all_reduce_seconds > slow_message)
    list.push_back("a sum of 4 KiB over all devices takes " + microseconds(check.all_reduce_seconds) + " microseconds");
  return list;
}

}  // namespace troika::serving
