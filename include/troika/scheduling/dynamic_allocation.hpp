// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/scheduling/allocation.hpp>

namespace troika {

struct DynamicOptions {
  double hysteresis = 0.05;  // shares stay until one of them is off by more than this part of itself
  double least = 0.02;       // of an even share: a device that gets nothing would never be measured again
};

// From measured speed and queues. What was not measured yet counts as the mean of what was.
class DynamicAllocation {
 public:
  explicit DynamicAllocation(DynamicOptions options = {}) : options_(options) {
    expects(options.hysteresis >= 0 && options.hysteresis < 1 && options.least >= 0 && options.least <= 1, [&] {
      return "dynamic allocation takes a hysteresis from 0 to below 1 and a least share from 0 to 1, not " +
             std::to_string(options.hysteresis) + " and " + std::to_string(options.least);
    });
  }

  // In proportion to speed; nothing for a device in quarantine while another is healthy.
  std::vector<double> shares(std::span<const DeviceLoad> loads) {
    bool any_healthy = false;
    for (const auto& load : loads) any_healthy |= load.healthy;
    const double mean_speed = mean(loads, &DeviceLoad::speed);
    std::vector<double> shares(loads.size(), 0.0);
    double total = 0;
    for (std::size_t i = 0; i < loads.size(); ++i) {
      if (any_healthy && !loads[i].healthy) continue;
      total += shares[i] = known_or(loads[i].speed, mean_speed);
    }
    const double least = options_.least * total / static_cast<double>(loads.size());
    for (auto& share : shares) {
      if (share > 0 && share < least) share = least;
      share /= total;
    }
    if (!last_.empty() && !moved(shares)) return last_;
    last_ = shares;
    return shares;
  }

  // The least expected time until this task would be done: what is queued, and the task itself, at the measured speed.
  int pick(std::span<const DeviceLoad> candidates) const {
    const double mean_speed = mean(candidates, &DeviceLoad::speed);
    const double mean_task = mean(candidates, &DeviceLoad::task_seconds);
    std::size_t best = 0;
    double soonest = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const auto& load = candidates[i];
      const double speed = known_or(load.speed, mean_speed);
      const double task = known_or(load.task_seconds, mean_task);
      const bool stated = load.task_work > 0;
      const double done = (load.queued_work + load.task_work) / speed +
                          static_cast<double>(load.queued_unstated + (stated ? 0 : 1)) * task;
      if (done < soonest) best = i, soonest = done;
    }
    return static_cast<int>(best);
  }

 private:
  static double known_or(double measured, double otherwise) { return measured > 0 ? measured : otherwise; }

  // Of the devices that were measured; 1 if none was.
  static double mean(std::span<const DeviceLoad> loads, double DeviceLoad::*value) {
    double sum = 0;
    int known = 0;
    for (const auto& load : loads) {
      if (load.*value > 0) sum += load.*value, ++known;
    }
    return known > 0 ? sum / known : 1.0;
  }

  bool moved(std::span<const double> shares) const {
    if (shares.size() != last_.size()) return true;
    for (std::size_t i = 0; i < shares.size(); ++i) {
      if (std::abs(shares[i] - last_[i]) > options_.hysteresis * last_[i]) return true;
    }
    return false;
  }

  DynamicOptions options_;
  std::vector<double> last_;
};

static_assert(Allocation<DynamicAllocation>);

}  // namespace troika
