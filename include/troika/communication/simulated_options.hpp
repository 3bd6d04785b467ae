// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

namespace troika {

// Something that goes wrong in a simulation: at the `at`-th step of a rank, counted from 1. A step is an agreement, a
// message or a split; a collective that is composed takes several.
struct SimulatedFailure {
  enum class Kind {
    stop,     // the rank falls silent; its peers learn of it by their deadlines
    throws,   // the rank throws std::runtime_error
    diverge,  // the rank names another operation, type or size than it was called with (at the next agreement)
    slow,     // the rank loses `seconds`
  };
  Kind kind = Kind::stop;
  int rank = 0;
  std::uint64_t at = 1;
  double seconds = 0;
};

struct SimulatedOptions {
  double latency = 1e-6;           // seconds, of each message and each round of an agreement
  double bandwidth = 10e9;         // bytes per second, of each message
  std::vector<double> slowdown{};  // of each rank's compute(); 1 where not given
  std::vector<SimulatedFailure> failures{};
  std::uint64_t seed = 0;  // of the order in which ranks run
  // Real time. A rank that keeps the turn for longer without a step counts as silent until its next one.
  std::chrono::milliseconds patience = std::chrono::seconds(60);
};

}  // namespace troika
