// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include <troika/scheduling/allocation.hpp>

namespace troika {

// The baseline for stress tests: random uneven shares, fixed by the seed and the number of devices, and random picks in
// a sequence fixed by the seed. The same on every platform.
class RandomAllocation {
 public:
  explicit RandomAllocation(std::uint64_t seed) : seed_(seed), random_(seed) {}

  std::vector<double> shares(std::span<const DeviceLoad> loads) const {
    std::mt19937_64 random(seed_);
    std::vector<double> shares(loads.size());
    for (auto& share : shares) share = static_cast<double>(1 + random() % 1000);
    return shares;
  }

  int pick(std::span<const DeviceLoad> candidates) { return static_cast<int>(random_() % candidates.size()); }

 private:
  std::uint64_t seed_;
  std::mt19937_64 random_;
};

static_assert(Allocation<RandomAllocation>);

}  // namespace troika
