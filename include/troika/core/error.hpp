// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace troika {

// What went wrong, in words a program can switch on. The message carries the rest.
enum class Fault {
  invalid_argument,  // a size, a shape, an option: the message names the valid ones
  mismatch,          // ranks called different collectives, or replicas differ
  timeout,           // a peer did not arrive by the deadline
  peer_failed,       // a peer threw, stopped or left
  bad_file,          // truncated, lying or unreadable input
  unsupported,       // valid, but not built: an architecture, a tensor type
  out_of_memory,
  device_failed,  // a GPU or its driver refused, or what ran there failed
};

constexpr std::string_view to_string(Fault fault) {
  switch (fault) {
    case Fault::invalid_argument: return "invalid argument";
    case Fault::mismatch: return "mismatch";
    case Fault::timeout: return "timeout";
    case Fault::peer_failed: return "peer failed";
    case Fault::bad_file: return "bad file";
    case Fault::unsupported: return "unsupported";
    case Fault::out_of_memory: return "out of memory";
    case Fault::device_failed: return "device failed";
  }
  return "unknown fault";
}

// Where in a distributed program it happened. `rank` is the rank at fault (not the one that noticed), -1 when unknown.
struct Place {
  int rank = -1;
  std::string operation{};
  std::uint64_t sequence = 0;  // number of the collective on its communicator, from 1; 0 outside of one
};

// The only exception type that troika throws itself. User exceptions pass through unchanged.
class Error : public std::runtime_error {
 public:
  Error(Fault fault, const std::string& what, Place place = {})
      : std::runtime_error(describe(fault, what, place)), fault_(fault), place_(std::move(place)) {}

  Fault fault() const noexcept { return fault_; }
  int rank() const noexcept { return place_.rank; }
  const std::string& operation() const noexcept { return place_.operation; }
  std::uint64_t sequence() const noexcept { return place_.sequence; }

 private:
  static std::string describe(Fault fault, const std::string& what, const Place& place) {
    std::string text;
    if (!place.operation.empty()) {
      text += place.operation;
      if (place.sequence != 0) text += " #" + std::to_string(place.sequence);
      text += ": ";
    }
    text += what;
    if (place.rank >= 0) text += " (rank " + std::to_string(place.rank) + ")";
    text += " [" + std::string(to_string(fault)) + "]";
    return text;
  }

  Fault fault_;
  Place place_;
};

// Argument check: the text is built only when it is needed.
template <class Text>
constexpr void expects(bool condition, Text&& text) {
  if (condition) [[likely]]
    return;
  if constexpr (std::is_invocable_v<Text>)
    throw Error(Fault::invalid_argument, text());
  else
    throw Error(Fault::invalid_argument, std::string(text));
}

}  // namespace troika
