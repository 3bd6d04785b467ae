// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/core/partition.hpp>

namespace troika {

// What an allocation may know of one device. "Work" is in whatever unit the program states it, the same everywhere.
struct DeviceLoad {
  int device = 0;
  double speed = 0;                    // measured work per second; 0: not measured yet
  double task_seconds = 0;             // mean time of a task that stated no work; 0: not measured yet
  int queued = 0;                      // tasks that wait or run there
  int queued_unstated = 0;             // those of them that stated no work
  double queued_work = 0;              // the work of the others
  double task_work = 0;                // of the task to be placed, the same in every candidate; 0: not stated
  std::size_t free_memory = SIZE_MAX;  // bytes; SIZE_MAX: unknown or without limit
  bool healthy = true;                 // false: in quarantine, or lost
  bool slowed = false;                 // a GPU whose clocks are held down by heat or power
  double utilisation = 0;              // of a GPU, by all programs; 0 also if unknown
  std::uint64_t succeeded = 0;         // tasks, over the life of the scheduler
  std::uint64_t failed = 0;
  double busy_seconds = 0;
};

// Decides who does what. shares(): how a stage that can be split is divided over all devices, one weight >= 0 each.
// pick(): which of the candidates takes a task that cannot be split, as an index into them; there is at least one.
// The scheduler calls one at a time, under a lock: an allocation needs none of its own, should be quick, and must not
// call the scheduler.
template <class A>
concept Allocation = std::move_constructible<A> && requires(A& allocation, std::span<const DeviceLoad> loads) {
  { allocation.shares(loads) } -> std::same_as<std::vector<double>>;
  { allocation.pick(loads) } -> std::same_as<int>;
};

// An allocation that states sizes itself. `shares` is what it answered before, so that all ranks of a run split alike.
template <class A>
concept PartitioningAllocation = Allocation<A> &&
    requires(const A& allocation, std::int64_t extent, std::int64_t align, std::span<const double> shares) {
  { allocation.partition(extent, align, shares) } -> std::same_as<Partition>;
};

// Throws unless there is one usable weight for each device.
inline void check_shares(std::span<const double> shares, std::size_t devices) {
  expects(shares.size() == devices, [&] {
    return "an allocation gave " + std::to_string(shares.size()) + " shares for " + std::to_string(devices) +
           " devices; it must give one for each";
  });
  double total = 0;
  for (const double share : shares) {
    expects(std::isfinite(share) && share >= 0,
            [&] { return "a share must be finite and not negative, not " + std::to_string(share); });
    total += share;
  }
  expects(total > 0 && std::isfinite(total), "at least one share must be above zero, and their sum finite");
}

// The candidate with the shortest queue; the first of equals.
inline int shortest_queue(std::span<const DeviceLoad> candidates) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < candidates.size(); ++i)
    if (candidates[i].queued < candidates[best].queued) best = i;
  return static_cast<int>(best);
}

}  // namespace troika
