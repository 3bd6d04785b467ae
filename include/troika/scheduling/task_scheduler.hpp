// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
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
#include <troika/device/host/futex.hpp>
#include <troika/device/mixed.hpp>
#include <troika/observe/log.hpp>
#include <troika/observe/trace.hpp>
#include <troika/scheduling/allocation.hpp>
#include <troika/scheduling/device_board.hpp>
#include <troika/scheduling/device_health.hpp>
#include <troika/scheduling/gang.hpp>
#include <troika/scheduling/lane_thread.hpp>
#include <troika/scheduling/task.hpp>
#include <troika/scheduling/task_record.hpp>

namespace troika {

struct SchedulerOptions {
  Trace* trace = nullptr;  // outlives the scheduler
  Log log{};               // is told of failed tasks and of devices in quarantine
  QuarantineRules quarantine{};
  std::function<std::chrono::steady_clock::time_point()> clock{};  // that quarantine goes by; empty: the real one
  double speed_memory = 0.7;  // how much of a measured speed stays with each new measurement, from 0 to below 1
  std::size_t records_per_lane = 1024;  // the latest ones are kept
};

// Who does what share of the work, and where a task goes when a device fails. Each device has two lanes, compute and
// communication; each lane is one thread on the device's cores that lives as long as the scheduler, so that memory that
// it touched first stays near. All members may be called from any thread.
//
// The destructor waits for what runs and cancels what has not started: such tasks fail with Fault::peer_failed.
template <Allocation A, Schedulable D = HostDevice>
class TaskScheduler final : private detail::TaskHome {
 public:
  // Whether ranks differ in the kind of their devices: then what each of them computes for itself, all from the same
  // values, is not the same bits.
  static constexpr bool mixed = detail::KindsOf<D>::mixed;

  TaskScheduler(std::vector<D> devices, A allocation, SchedulerOptions options = {})
      : devices_(checked(std::move(devices), options)),
        options_(std::move(options)),
        board_(devices_, std::move(allocation), options_.quarantine, options_.clock, options_.speed_memory),
        gang_(device_count()),
        off_lane_records_(options_.records_per_lane) {
    (void)shares();  // a wrong number of weights should show here
    // With more devices than cores, who spins keeps the one from working that it waits for.
    const bool crowded = devices_.size() > std::max(1u, std::thread::hardware_concurrency());
    patience_ = detail::Patience{crowded ? 50 : 500};
    for (int i = 0; i < device_count(); ++i) {
      for (const auto lane : {Lane::compute, Lane::communication}) {
        lanes_.emplace_back(options_.records_per_lane, options_.trace ? &options_.trace->track(i, lane) : nullptr,
                            detail::ThisLane{home(), i, lane}, lane == Lane::compute ? patience_ : detail::Patience{50},
                            [this, i] { pin(device(i)); });
      }
    }
    for (auto& lane : lanes_) lane.thread.ready();
  }
  TaskScheduler(const TaskScheduler&) = delete;
  TaskScheduler& operator=(const TaskScheduler&) = delete;
  ~TaskScheduler() {
    stopping_.store(true);
    for (std::uint32_t left; (left = unfinished_.value().load()) != 0;) unfinished_.sleep(left);
    for (auto& lane : lanes_) lane.thread.stop();  // all of them before any goes: one may still be waking another
  }

  int device_count() const { return static_cast<int>(devices_.size()); }
  D& device(int i) { return devices_[static_cast<std::size_t>(i)]; }
  // The scheduler calls it under a lock; do not change it while tasks are submitted.
  A& allocation() { return board_.allocation(); }
  Trace* trace() const { return options_.trace; }  // null when nobody traces

  // SPMD: fn(Rank<D>&) once for each device at the same time, on its compute lane; returns when all returned, with a
  // vector of their results in rank order if there are any. Of mixed devices each rank has its own kind: fn takes auto&.
  // One run at a time: callers queue up, behind tasks that are queued. If ranks throw, the caller gets the exception
  // that came first, unchanged; the Errors by which others report the failure of a peer count only if there is nothing
  // else. Devices in quarantine take part: a run needs all.
  template <class F>
  auto run_on_every_device(F&& fn) {
    using R = std::decay_t<std::invoke_result_t<F&, Rank<FirstKind>&>>;
    expects(detail::this_lane.scheduler != home(),
            "run_on_every_device was called by a rank or a task of the same scheduler, and would wait for itself");
    std::lock_guard lock(gang_.mutex());
    const auto world = std::make_shared<World>(device_count());
    detail::RankFailures failures;
    std::vector<std::optional<std::conditional_t<std::is_void_v<R>, char, R>>> results;
    if constexpr (!std::is_void_v<R>) results.resize(devices_.size());
    auto body = [&](int index) noexcept {
      try {
        detail::visit_device(device(index), [&](auto& own) {
          Rank rank(index, own, world, options_.trace);
          if constexpr (std::is_void_v<R>)
            fn(rank);
          else
            results[static_cast<std::size_t>(index)].emplace(fn(rank));
        });
      } catch (...) {
        failures.post(*world, index);
      }
    };
    gang_.run(
        body, [&](int index) -> auto& { return lane(index, Lane::compute).thread.queue(); }, patience_);
    failures.rethrow();
    if constexpr (!std::is_void_v<R>) {
      std::vector<R> values;
      values.reserve(results.size());
      for (auto& result : results) values.push_back(std::move(*result));
      return values;
    }
  }

  // How a stage that can be split is divided over all devices: one weight each. A dynamic allocation may answer
  // differently from call to call: the ranks of a run agree by asking through their rank.
  std::vector<double> shares() const { return board_.shares(); }
  Partition partition(std::int64_t extent, std::int64_t align = 1) const {
    return board_.partition(extent, align, board_.shares());
  }
  // Collective: the n-th call of every rank of a run gets the same answer, which is as new as the first of these calls.
  template <Device Own>
  std::vector<double> shares(Rank<Own>& rank) const {
    return *rank.world().template meet<std::vector<double>>(
        rank.rank(), [this] { return std::make_shared<std::vector<double>>(board_.shares()); });
  }
  template <Device Own>
  Partition partition(Rank<Own>& rank, std::int64_t extent, std::int64_t align = 1) const {
    return board_.partition(extent, align, shares(rank));
  }

  // Tells what was measured on a device: its speed is work / seconds, in the unit that `work` has everywhere. Tasks
  // that state their work report by themselves. What took no time is not a measurement.
  void report(int device, double work, double seconds) {
    check_device(device);
    expects(std::isfinite(work) && work >= 0 && std::isfinite(seconds) && seconds >= 0, [&] {
      return "a report takes finite work and seconds of at least 0, not " + std::to_string(work) + " and " +
             std::to_string(seconds);
    });
    if (work > 0 && seconds > 0) board_.report(device, work, seconds);
  }

  // One task for one device: task(D&) or task(). It starts once the tasks in `after` are done, on the device that the
  // allocation picks then. If it throws, that is logged and it is tried on the next best device, unless `retry` is off;
  // when no device is left, the task has failed with the first exception.
  template <class F>
  auto submit(F&& task, TaskOptions options = {}) {
    using Callable = std::decay_t<F>;
    static_assert(std::invocable<Callable&, FirstKind&> || std::invocable<Callable&>,
                  "a task takes its device, or nothing");
    using R = result_of<Callable>;
    static_assert(!std::is_reference_v<R>, "a task gives a value; return a pointer instead of a reference");
    check(options);
    auto owner = std::make_unique<Submitted<Callable, R>>(std::forward<F>(task));
    owner->reserve_links(options.after.size());
    auto& node = *owner.release();
    Task<R> handle(&node);
    node.home = this;
    node.id = submitted_.fetch_add(1, std::memory_order_relaxed) + 1;
    node.name = std::move(options.name);
    node.lane = options.lane;
    node.work = options.work;
    node.forced_device = options.device;
    node.retry = options.retry;
    node.submitted = Clock::now();
    unfinished_.value().fetch_add(1, std::memory_order_relaxed);
    for (std::size_t i = 0; i < options.after.size(); ++i)
      node.depend_on(detail::TaskAccess::node(options.after[i]), i);
    node.release_guard();
    return handle;
  }

  // Each device: its queue, measured speed, health and totals.
  std::vector<DeviceLoad> loads() const { return board_.loads(); }

  // The latest tries of tasks, in the order in which they ended.
  std::vector<TaskRecord> records() const {
    std::vector<TaskRecord> records;
    for (const auto& lane : lanes_) lane.records.append_to(records);
    off_lane_records_.append_to(records);
    std::ranges::stable_sort(records, {}, &TaskRecord::finished);
    return records;
  }

 private:
  using Clock = std::chrono::steady_clock;
  using FirstKind = typename detail::KindsOf<D>::First;

  struct LaneState {
    template <class... Args>
    LaneState(std::size_t capacity, Trace::Track* spans, Args&&... args)
        : records(capacity), track(spans), thread(std::forward<Args>(args)...) {}
    RecordRing records;
    Trace::Track* track;
    detail::LaneThread thread;  // last: it uses the others
  };

  template <class Callable, class = void>
  struct Result {
    using type = std::invoke_result_t<Callable&>;
  };
  template <class Callable>
  struct Result<Callable, std::enable_if_t<std::invocable<Callable&, FirstKind&>>> {
    using type = std::invoke_result_t<Callable&, FirstKind&>;
  };
  template <class Callable>
  using result_of = std::remove_cv_t<typename Result<Callable>::type>;

  template <class Callable, class R>
  struct Submitted final : detail::ResultNode<R> {
    template <class F>
    explicit Submitted(F&& task) : callable(std::forward<F>(task)) {
      this->run = [](detail::Job& job) noexcept {
        auto& node = static_cast<Submitted&>(job);
        static_cast<TaskScheduler*>(node.home)->attempt(node);
      };
    }
    void invoke(void* where) override {
      auto call = [&]() -> R {
        if constexpr (std::invocable<Callable&, FirstKind&>)
          return detail::visit_device(*static_cast<D*>(where), *callable);
        else
          return (*callable)();
      };
      if constexpr (std::is_void_v<R>)
        call();
      else
        this->result.emplace(call());
    }
    void drop_callable() noexcept override { callable.reset(); }

    std::optional<Callable> callable;
  };

  static std::vector<D> checked(std::vector<D> devices, const SchedulerOptions& options) {
    expects(!devices.empty(), "a scheduler needs at least 1 device");
    expects(options.speed_memory >= 0 && options.speed_memory < 1,
            [&] { return "speed_memory is from 0 to below 1, not " + std::to_string(options.speed_memory); });
    expects(options.quarantine.failures >= 1 && options.quarantine.first.count() >= 0 &&
                options.quarantine.longest >= options.quarantine.first,
            "quarantine takes at least 1 failure, and times of at least 0 ms, `longest` not below `first`");
    return devices;
  }
  const detail::TaskHome* home() const { return this; }
  static void pin(D& device) {
    detail::visit_device(device, [](auto& own) {
      if constexpr (requires { own.team().pin_caller(); }) own.team().pin_caller();
    });
  }
  void check_device(int device) const {
    expects(device >= 0 && device < device_count(), [&] {
      return "there is no device " + std::to_string(device) + "; valid are 0 to " + std::to_string(device_count() - 1);
    });
  }
  void check(const TaskOptions& options) {
    if (options.device != -1) check_device(options.device);
    expects(std::isfinite(options.work) && options.work >= 0, [&] {
      return "the work of task '" + options.name + "' must be finite and not negative, not " +
             std::to_string(options.work);
    });
    for (const auto& task : options.after) {
      auto& other = detail::TaskAccess::node(task);
      expects(other.done() || other.home == this, [&] {
        return "task '" + options.name + "' cannot come after '" + other.name +
               "', which another scheduler has not finished; wait for it first";
      });
    }
  }
  LaneState& lane(int device, Lane lane) {
    return lanes_[2 * static_cast<std::size_t>(device) + (lane == Lane::communication ? 1 : 0)];
  }

  // TaskHome.
  bool place(detail::TaskNode& node) noexcept override {
    try {
      if (stopping_.load(std::memory_order_relaxed)) {
        cancel(node);
        return false;
      }
      if (!board_.place(node)) return false;
    } catch (...) {  // the allocation threw
      if (!node.failure) node.failure = std::current_exception();
      if (node.attempt == 0) node.outcome = TaskOutcome::skipped;
      return false;
    }
    lane(node.device, node.lane).thread.queue().push(node);
    return true;
  }
  void note_unrun(detail::TaskNode& node) noexcept override { record(off_lane_records_, node, -1, Clock::now(), {}); }
  void gone() noexcept override {
    if (unfinished_.value().fetch_sub(1) == 1 && stopping_.load()) unfinished_.wake_all();
  }

  void cancel(detail::TaskNode& node) noexcept {
    if (node.failure) return;  // it was tried, and this is what came of it
    node.outcome = TaskOutcome::cancelled;
    try {
      throw Error(Fault::peer_failed, "task '" + node.name + "' was not started: its scheduler was destroyed");
    } catch (...) {
      node.failure = std::current_exception();
    }
  }

  // On the thread of the lane.
  void attempt(detail::TaskNode& node) noexcept {
    if (stopping_.load(std::memory_order_relaxed)) {
      board_.leave(node);
      cancel(node);
      detail::TaskNode::settle(node);
      return;
    }
    const auto begin = Clock::now();
    std::exception_ptr failure;
    try {
      node.invoke(&device(node.device));
    } catch (...) {
      failure = std::current_exception();
    }
    const auto end = Clock::now();
    node.outcome = failure ? TaskOutcome::failed : TaskOutcome::succeeded;
    auto& here = lane(node.device, node.lane);
    record(here.records, node, node.device, begin, end);
    const double seconds = std::chrono::duration<double>(end - begin).count();
    try {
      if (here.track) here.track->record(options_.trace->keep(node.name), begin, end);
      if (failure) {
        options_.log.write(LogLevel::warning, "task '" + node.name + "' failed on device " +
                                                  std::to_string(node.device) + ", try " +
                                                  std::to_string(node.attempt) + ": " + detail::what_of(failure));
      }
      for (const auto& news : failure ? board_.failed(node, seconds) : board_.succeeded(node, seconds))
        options_.log.write(LogLevel::warning, news);
    } catch (...) {
    }  // out of memory for telling about it
    if (failure) {
      if (!node.failure) node.failure = std::move(failure);
      if (node.retry && place(node)) return;
    } else {
      node.failure = nullptr;
    }
    detail::TaskNode::settle(node);
  }

  void record(RecordRing& ring, const detail::TaskNode& node, int device, Clock::time_point begin,
              std::optional<Clock::time_point> end) noexcept {
    try {
      ring.add([&](TaskRecord& record) {
        record.name = node.name;
        record.id = node.id;
        record.device = device;
        record.lane = node.lane;
        record.attempt = node.attempt;
        record.waited_seconds = std::chrono::duration<double>(begin - node.submitted).count();
        record.ran_seconds = end ? std::chrono::duration<double>(*end - begin).count() : 0;
        record.outcome = node.outcome;
        record.finished = end.value_or(begin);
      });
    } catch (...) {
    }  // out of memory: this one is not kept
  }

  std::vector<D> devices_;
  SchedulerOptions options_;
  mutable detail::DeviceBoard<A, D> board_;
  detail::Patience patience_;  // of the thread that holds the lock of the gang
  detail::Gang gang_;
  RecordRing off_lane_records_;
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> submitted_{0};
  alignas(64) detail::Futex unfinished_;
  std::deque<LaneState> lanes_;  // last: the threads use the others
};

template <Schedulable D, Allocation A>
TaskScheduler(std::vector<D>, A, SchedulerOptions = {}) -> TaskScheduler<A, D>;

}  // namespace troika
