// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/communication/rank.hpp>
#include <troika/core/error.hpp>
#include <troika/core/lane.hpp>
#include <troika/core/partition.hpp>
#include <troika/device/device.hpp>
#include <troika/device/host/device.hpp>
#include <troika/observe/log.hpp>
#include <troika/observe/trace.hpp>
#include <troika/scheduling/allocation.hpp>
#include <troika/scheduling/gang.hpp>
#include <troika/scheduling/lane_thread.hpp>

namespace troika {

struct SchedulerOptions {
  Trace* trace = nullptr;  // outlives the scheduler
  Log log{};
};

// Who does what share of the work, and where a task goes when a device fails.
template <Allocation A, Device D = HostDevice>
class TaskScheduler {
 public:
  TaskScheduler(std::vector<D> devices, A allocation, SchedulerOptions options = {})
      : devices_(std::move(devices)), allocation_(std::move(allocation)), options_(std::move(options)),
        gang_(static_cast<int>(devices_.size())), loads_(devices_.size()) {
    expects(!devices_.empty(), "a scheduler needs at least 1 device");
    for (std::size_t i = 0; i < devices_.size(); ++i) loads_[i].device = static_cast<int>(i);
    (void)shares();  // a wrong number of weights should show here
    const bool crowded = devices_.size() >= std::max(2u, std::thread::hardware_concurrency());
    patience_ = crowded ? detail::Patience{200, 2} : detail::Patience{2000, 2};
    for (int i = 0; i < device_count(); ++i)
      compute_.emplace_back(detail::ThisLane{this, i, Lane::compute}, patience_, [this, i] { pin(device(i)); });
    for (auto& lane : compute_) lane.ready();
  }
  TaskScheduler(const TaskScheduler&) = delete;
  TaskScheduler& operator=(const TaskScheduler&) = delete;

  int device_count() const { return static_cast<int>(devices_.size()); }
  D& device(int i) { return devices_[static_cast<std::size_t>(i)]; }
  A& allocation() { return allocation_; }

  // SPMD: fn(Rank<D>&) once for each device, each on its own pinned thread; returns when all returned, with a vector of
  // their results in rank order if there are any. If ranks throw, the caller gets the exception of the one that was
  // first, not the reports of the others about it. One run at a time: callers queue up.
  template <class F>
  auto run_on_every_device(F&& fn) {
    using R = std::decay_t<std::invoke_result_t<F&, Rank<D>&>>;
    expects(detail::this_lane.scheduler != this, "run_on_every_device was called on a thread of its own scheduler");
    std::lock_guard lock(gang_.mutex());
    const auto world = std::make_shared<World>(device_count());
    detail::RankFailures failures;
    std::conditional_t<std::is_void_v<R>, int, std::vector<std::optional<wrap<R>>>> results{};
    if constexpr (!std::is_void_v<R>) results.resize(devices_.size());
    auto body = [&](int index) noexcept {
      try {
        Rank<D> rank(index, device(index), world, options_.trace);
        if constexpr (std::is_void_v<R>) fn(rank);
        else results[static_cast<std::size_t>(index)].emplace(fn(rank));
      } catch (...) {
        failures.post(*world, index);
      }
    };
    gang_.run(body, [&](int index) -> detail::JobQueue& { return compute_[static_cast<std::size_t>(index)].queue(); },
              patience_);
    failures.rethrow();
    if constexpr (!std::is_void_v<R>) {
      std::vector<R> values;
      values.reserve(results.size());
      for (auto& result : results) values.push_back(std::move(*result));
      return values;
    }
  }

  std::vector<double> shares() const {
    std::lock_guard lock(mutex_);
    auto shares = allocation_.shares(loads_);
    check_shares(shares, devices_.size());
    return shares;
  }
  Partition partition(std::int64_t extent, std::int64_t align = 1) const {
    const auto weights = shares();
    if constexpr (PartitioningAllocation<A>) return allocation_.partition(extent, align, weights);
    else return Partition::weighted(extent, weights, align);
  }
  void report(int, double, double) {}

 private:
  template <class R> using wrap = std::conditional_t<std::is_void_v<R>, int, R>;

  static void pin(D& device) {
    if constexpr (requires { device.team().pin_caller(); }) device.team().pin_caller();
  }

  std::vector<D> devices_;
  mutable A allocation_;
  SchedulerOptions options_;
  detail::Patience patience_;
  detail::Gang gang_;
  mutable std::mutex mutex_;
  std::vector<DeviceLoad> loads_;
  std::deque<detail::LaneThread> compute_;  // last: the threads use the others
};

template <Device D, Allocation A>
TaskScheduler(std::vector<D>, A, SchedulerOptions = {}) -> TaskScheduler<A, D>;

}  // namespace troika
