// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <troika/scheduling/allocation.hpp>

namespace troika {

// Even shares; tasks to the devices in turn, whatever their load. Devices that are no candidates miss their turn.
class RoundRobin {
 public:
  std::vector<double> shares(std::span<const DeviceLoad> loads) const { return std::vector<double>(loads.size(), 1.0); }

  int pick(std::span<const DeviceLoad> candidates) {
    // Candidates come in the order of their numbers: the first one after the last device, or else the first of all.
    std::size_t choice = 0;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (candidates[i].device > last_) {
        choice = i;
        break;
      }
    }
    last_ = candidates[choice].device;
    return static_cast<int>(choice);
  }

 private:
  int last_ = -1;
};

static_assert(Allocation<RoundRobin>);

}  // namespace troika
