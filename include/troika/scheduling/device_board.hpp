// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/core/partition.hpp>
#include <troika/device/condition.hpp>
#include <troika/device/device.hpp>
#include <troika/device/mixed.hpp>
#include <troika/scheduling/allocation.hpp>
#include <troika/scheduling/device_health.hpp>
#include <troika/scheduling/speed_meter.hpp>
#include <troika/scheduling/task_node.hpp>

namespace troika::detail {

// Bytes that a device has left; SIZE_MAX if it cannot tell or has no limit.
template <class D>
std::size_t free_memory(const D& device) {
  if constexpr (requires {
                  { device.free_memory() } -> std::convertible_to<std::size_t>;
                }) {
    return device.free_memory();
  } else if constexpr (requires { device.options().memory_limit - device.memory_reserved(); }) {
    const std::size_t limit = device.options().memory_limit;
    return limit == SIZE_MAX ? limit : limit - std::min(limit, device.memory_reserved());
  } else {
    return SIZE_MAX;
  }
}

// What is known of each device, and the allocation that decides on it. Thread-safe. A task takes the lock of the board
// once, to be placed, and afterwards only that of its device.
template <Allocation A, Schedulable D>
class DeviceBoard {
 public:
  using Clock = std::function<DeviceHealth::Time()>;
  using News = std::vector<std::string>;  // for the log, which is written to without a lock; mostly empty

  // `devices` outlives the board. `keep`: see SpeedMeter.
  DeviceBoard(const std::vector<D>& devices, A allocation, QuarantineRules rules, Clock clock, double keep)
      : devices_(&devices), allocation_(std::move(allocation)), rules_(rules), clock_(std::move(clock)) {
    if (!clock_) clock_ = [] { return std::chrono::steady_clock::now(); };
    for (std::size_t i = 0; i < devices.size(); ++i) entries_.emplace_back(keep);
    scratch_.reserve(devices.size());
  }

  A& allocation() { return allocation_; }

  std::vector<double> shares() {
    std::lock_guard lock(mutex_);
    scratch_.clear();
    for (std::size_t i = 0; i < entries_.size(); ++i) scratch_.push_back(load_of(i));
    auto shares = allocation_.shares(scratch_);
    check_shares(shares, entries_.size());
    return shares;
  }

  Partition partition(std::int64_t extent, std::int64_t align, const std::vector<double>& shares) {
    if constexpr (PartitioningAllocation<A>) {
      std::lock_guard lock(mutex_);
      return allocation_.partition(extent, align, shares);
    } else {
      return Partition::weighted(extent, shares, align);
    }
  }

  // Decides on a device for the next try of a task and counts the task there. False when every device was tried.
  bool place(TaskNode& node) {
    if (node.forced_device >= 0) {
      if (node.attempt > 0) return false;
      node.device = node.forced_device;
    } else {
      std::lock_guard lock(mutex_);
      const auto choice = choose(node);
      if (!choice) return false;
      node.device = *choice;
    }
    ++node.attempt;
    auto& entry = entry_of(node);
    entry.queued.fetch_add(1, std::memory_order_relaxed);
    if (node.work > 0)
      entry.queued_work.fetch_add(node.work, std::memory_order_relaxed);
    else
      entry.queued_unstated.fetch_add(1, std::memory_order_relaxed);
    return true;
  }

  // The task is no longer on its device.
  void leave(const TaskNode& node) noexcept {
    auto& entry = entry_of(node);
    if (node.work > 0)
      entry.queued_work.fetch_sub(node.work, std::memory_order_relaxed);
    else
      entry.queued_unstated.fetch_sub(1, std::memory_order_relaxed);
    entry.queued.fetch_sub(1, std::memory_order_relaxed);
  }

  // A try that went well.
  News succeeded(const TaskNode& node, double seconds) {
    leave(node);
    auto& entry = entry_of(node);
    {
      std::lock_guard lock(entry.mutex);
      entry.count(entry.succeeded, seconds);
      if (node.work > 0)
        entry.measure(entry.work_meter, entry.speed, node.work, seconds);
      else
        entry.measure(entry.task_meter, entry.tasks_per_second, 1, seconds);
    }
    News news;
    if (node.failed_on.empty() && !entry.on_record.load(std::memory_order_relaxed)) return news;
    std::lock_guard lock(mutex_);
    if (entry.health.succeeded()) {
      --in_quarantine_;
      news.push_back("device " + std::to_string(node.device) + " works again and leaves quarantine");
    }
    entry.on_record.store(false, std::memory_order_relaxed);
    for (const auto& failed : node.failed_on) {
      if (!failed.blamed) blame(failed.device, false, news);  // another device could do it
    }
    return news;
  }

  // A try that threw. Its device is blamed at once if it was on probation, or if no other device gets a chance; else
  // when another one succeeds, because a task that fails everywhere is at fault itself.
  News failed(TaskNode& node, double seconds) {
    leave(node);
    auto& entry = entry_of(node);
    {
      std::lock_guard lock(entry.mutex);
      entry.count(entry.failed, seconds);
    }
    News news;
    std::lock_guard lock(mutex_);
    const bool blamed = node.probe || !node.retry || node.forced_device >= 0;
    if (blamed)
      blame(node.device, node.probe, news);
    else
      entry.health.noticed(clock_());
    node.failed_on.push_back({node.device, blamed});
    node.probe = false;
    return news;
  }

  void report(int device, double work, double seconds) {
    auto& entry = entries_[static_cast<std::size_t>(device)];
    std::lock_guard lock(entry.mutex);
    entry.measure(entry.work_meter, entry.speed, work, seconds);
  }

  std::vector<DeviceLoad> loads() {
    std::lock_guard lock(mutex_);
    std::vector<DeviceLoad> loads;
    for (std::size_t i = 0; i < entries_.size(); ++i) loads.push_back(load_of(i));
    return loads;
  }

 private:
  // Counters are written by the device's lanes and read by whoever places a task; they need not agree with each other.
  struct alignas(64) Entry {
    explicit Entry(double keep) : work_meter(keep), task_meter(keep) {}

    void measure(SpeedMeter& meter, std::atomic<double>& result, double work, double seconds) {
      meter.add(work, seconds);
      result.store(meter.speed(), std::memory_order_relaxed);
    }
    void count(std::atomic<std::uint64_t>& tries, double seconds) {
      tries.store(tries.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      busy_seconds.store(busy_seconds.load(std::memory_order_relaxed) + seconds, std::memory_order_relaxed);
    }

    std::atomic<int> queued{0}, queued_unstated{0};
    std::atomic<double> queued_work{0};
    std::mutex mutex;  // for writing what follows
    SpeedMeter work_meter, task_meter;
    std::atomic<double> speed{0}, tasks_per_second{0}, busy_seconds{0};
    std::atomic<std::uint64_t> succeeded{0}, failed{0};
    DeviceHealth health;  // under the lock of the board, and what follows
    DeviceCondition condition{};
    std::optional<DeviceHealth::Time> condition_read{};
    std::atomic<bool> on_record{false};  // health has something on record
  };

  Entry& entry_of(const TaskNode& node) { return entries_[static_cast<std::size_t>(node.device)]; }

  // First a device whose quarantine ran out, to test it with this task; then what the allocation picks of the healthy
  // ones; then the one in quarantine whose last failure is the longest ago.
  std::optional<int> choose(TaskNode& node) {
    if (in_quarantine_ > 0 && node.retry && node.attempt == 0) {
      const auto now = clock_();
      for (std::size_t i = 0; i < entries_.size(); ++i) {
        if (!entries_[i].health.due(now)) continue;
        entries_[i].health.begin_probe();
        node.probe = true;
        return static_cast<int>(i);
      }
    }
    scratch_.clear();
    std::optional<std::size_t> last_resort;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      if (was_tried(node, static_cast<int>(i))) continue;
      const auto& health = entries_[i].health;
      auto load = load_of(i);
      if (load.healthy) {
        load.task_work = node.work;
        scratch_.push_back(load);
      } else if (!last_resort || health.last_failure() < entries_[*last_resort].health.last_failure()) {
        last_resort = i;
      }
    }
    if (!scratch_.empty()) {
      const int choice = allocation_.pick(scratch_);
      expects(choice >= 0 && static_cast<std::size_t>(choice) < scratch_.size(), [&] {
        return "an allocation picked candidate " + std::to_string(choice) + " of " + std::to_string(scratch_.size()) +
               "; valid are 0 to " + std::to_string(scratch_.size() - 1);
      });
      return scratch_[static_cast<std::size_t>(choice)].device;
    }
    if (!last_resort) return std::nullopt;
    return static_cast<int>(*last_resort);
  }

  static bool was_tried(const TaskNode& node, int device) {
    return std::ranges::any_of(node.failed_on, [&](const auto& failed) { return failed.device == device; });
  }

  void blame(int device, bool probe, News& news) {
    auto& entry = entries_[static_cast<std::size_t>(device)];
    const bool was_healthy = entry.health.healthy();
    entry.on_record.store(true, std::memory_order_relaxed);
    if (!entry.health.failed(clock_(), probe, rules_)) return;
    if (was_healthy) ++in_quarantine_;
    news.push_back("device " + std::to_string(device) +
                   (was_healthy ? " goes into quarantine" : " stays in quarantine") + "; it is tried again in " +
                   std::to_string(entry.health.back_off().count()) + " ms");
  }

  // Asks a device how it is, once a second at most.
  template <class Own>
  void look_at(const Own& device, Entry& entry) {
    if constexpr (HasCondition<Own>) {
      const auto now = clock_();
      if (entry.condition_read && now - *entry.condition_read < std::chrono::seconds(1)) return;
      entry.condition = device.condition();
      entry.condition_read = now;
    }
  }

  DeviceLoad load_of(std::size_t device) {
    auto& entry = entries_[device];
    DeviceLoad load;
    load.device = static_cast<int>(device);
    load.speed = entry.speed.load(std::memory_order_relaxed);
    const double rate = entry.tasks_per_second.load(std::memory_order_relaxed);
    load.task_seconds = rate > 0 ? 1 / rate : 0;
    load.queued = entry.queued.load(std::memory_order_relaxed);
    load.queued_unstated = entry.queued_unstated.load(std::memory_order_relaxed);
    // A sum of many roundings: what is left of it in an empty queue is nothing.
    if (load.queued > load.queued_unstated)
      load.queued_work = std::max(0.0, entry.queued_work.load(std::memory_order_relaxed));
    visit_device((*devices_)[device], [&](const auto& own) {
      look_at(own, entry);
      load.free_memory = std::min(entry.condition.free_memory, free_memory(own));
    });
    load.healthy = entry.health.healthy() && !entry.condition.lost;
    load.slowed = entry.condition.slowed;
    load.utilisation = entry.condition.utilisation;
    load.succeeded = entry.succeeded.load(std::memory_order_relaxed);
    load.failed = entry.failed.load(std::memory_order_relaxed);
    load.busy_seconds = entry.busy_seconds.load(std::memory_order_relaxed);
    return load;
  }

  const std::vector<D>* devices_;
  mutable std::mutex mutex_;  // for the allocation, every health, and what follows
  A allocation_;
  QuarantineRules rules_;
  Clock clock_;
  std::deque<Entry> entries_;
  std::vector<DeviceLoad> scratch_;
  int in_quarantine_ = 0;
};

}  // namespace troika::detail
