// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/scheduling/allocation.hpp>
#include <troika/scheduling/dynamic_allocation.hpp>
#include <troika/scheduling/random_allocation.hpp>
#include <troika/scheduling/round_robin.hpp>
#include <troika/scheduling/static_allocation.hpp>

namespace troika {

inline constexpr std::array<std::string_view, 4> allocation_names{"dynamic", "static", "round-robin", "random"};

// An allocation that a user names when the program runs.
class NamedAllocation {
 public:
  // `seed` is that of "random". Error{invalid_argument} for another name.
  explicit NamedAllocation(std::string_view name, std::uint64_t seed = 1) {
    if (name == "dynamic") return;
    if (name == "static")
      allocation_ = StaticAllocation();
    else if (name == "round-robin")
      allocation_ = RoundRobin();
    else if (name == "random")
      allocation_ = RandomAllocation(seed);
    else
      throw Error(Fault::invalid_argument, "there is no allocation '" + std::string(name) +
                                               "'; valid are dynamic, static, round-robin and random");
  }

  std::vector<double> shares(std::span<const DeviceLoad> loads) {
    return std::visit([&](auto& allocation) { return allocation.shares(loads); }, allocation_);
  }
  int pick(std::span<const DeviceLoad> candidates) {
    return std::visit([&](auto& allocation) { return allocation.pick(candidates); }, allocation_);
  }

 private:
  std::variant<DynamicAllocation, StaticAllocation, RoundRobin, RandomAllocation> allocation_;
};

static_assert(Allocation<NamedAllocation>);

}  // namespace troika
