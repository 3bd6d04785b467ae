// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace troika {

// How a device is, of which this program may not be the only user.
struct DeviceCondition {
  bool lost = false;       // it does not answer any more
  bool slowed = false;     // by heat, or by what feeds it power
  double utilisation = 0;  // share of the latest moments in which anybody's work ran there; 0 also if unknown
  std::size_t free_memory = SIZE_MAX;  // bytes; SIZE_MAX: unknown
};

// A device that can tell. It may take a millisecond.
template <class D>
concept HasCondition = requires(const D& device) {
  { device.condition() } -> std::same_as<DeviceCondition>;
};

}  // namespace troika
