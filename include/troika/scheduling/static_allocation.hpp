// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/core/partition.hpp>
#include <troika/scheduling/allocation.hpp>

namespace troika {

// Decided up front, whatever happens later: even, weighted, or size by size.
class StaticAllocation {
 public:
  // Even.
  StaticAllocation() = default;
  // One weight for each device: StaticAllocation{{1.0, 3.0}} gives the second three quarters.
  explicit StaticAllocation(std::vector<double> weights) : weights_(std::move(weights)) {
    check_shares(weights_, weights_.size());
  }

  // Exact sizes. An extent that is k times their sum is split into k times these sizes (heads -> features); any other
  // extent is an error.
  static StaticAllocation by_hand(std::vector<std::int64_t> sizes) {
    std::vector<double> weights;
    std::int64_t total = 0;
    for (const auto size : sizes) {
      expects(size >= 0 && size <= std::numeric_limits<std::int64_t>::max() - total,
              [&] { return "a size by hand cannot be " + std::to_string(size) + "; it is 0 or more"; });
      total += size;
      weights.push_back(static_cast<double>(size));
    }
    StaticAllocation allocation(std::move(weights));
    allocation.sizes_ = std::move(sizes);
    return allocation;
  }

  std::vector<double> shares(std::span<const DeviceLoad> loads) const {
    return weights_.empty() ? std::vector<double>(loads.size(), 1.0) : weights_;
  }

  // In turn, by weight: with weights 1 and 3, every fourth task goes to the first, in between the others. A device that
  // was no candidate for a while does not catch up.
  int pick(std::span<const DeviceLoad> candidates) {
    int best = 0;
    double total = 0, most = -std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const auto device = static_cast<std::size_t>(candidates[i].device);
      if (device >= credit_.size()) credit_.resize(device + 1, 0.0);
      const double weight = weights_.empty() ? 1.0 : weights_[device];
      if (weight <= 0) continue;
      total += weight;
      credit_[device] += weight;
      if (credit_[device] > most) best = static_cast<int>(i), most = credit_[device];
    }
    // Without any weight among them, only devices that should get nothing are left to try.
    credit_[static_cast<std::size_t>(candidates[static_cast<std::size_t>(best)].device)] -= total;
    return best;
  }

  Partition partition(std::int64_t extent, std::int64_t align, std::span<const double> shares) const {
    if (sizes_.empty()) return Partition::weighted(extent, shares, align);
    std::int64_t total = 0;
    for (const auto size : sizes_) total += size;
    expects(extent >= 0 && extent % total == 0, [&] {
      return "sizes by hand add up to " + std::to_string(total) + " and cannot split an extent of " +
             std::to_string(extent) + "; valid extents are multiples of " + std::to_string(total);
    });
    std::vector<std::int64_t> scaled = sizes_;
    for (auto& size : scaled) size *= extent / total;
    return Partition::by_hand(extent, scaled, align);
  }

 private:
  std::vector<double> weights_;      // empty: even
  std::vector<std::int64_t> sizes_;  // empty: not by hand
  std::vector<double> credit_;       // by device: what it is owed of the tasks so far
};

static_assert(PartitioningAllocation<StaticAllocation>);

}  // namespace troika
