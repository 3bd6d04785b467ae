// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/device/device.hpp>
#include <troika/device/second_stream.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/weights.hpp>
#include <troika/pipeline.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/run_culprits.hpp>
#include <troika/serving/run_self_check.hpp>
#include <troika/sync/data_sync.hpp>

namespace troika::serving {

// What is loaded, for as many runs as there are.
struct RunModel {
  models::ModelConfig config;
  models::Weights weights;
  std::int64_t context = 0, pages = 0;
};

// Who decides the steps of a run: called by rank 0 while the others wait for it, and by nobody once the run has been
// given up.
template <class Work>
struct RunLeader {
  std::function<void()> loaded;
  std::function<bool(typename Work::Step&)> next;  // false: the run ends. An empty step is none
  std::function<void(typename Work::Taken&)> took;
  std::function<void(const SelfCheck&)> checked{};  // devices and links, while there was no step to take
};

// How ranks talk.
template <class Transport>
struct RunTransports {
  Transport steps{};
  // While they load and warm up: devices take memory from their driver then, and must not wait for each other.
  Transport loading{};
};

// How a run ended.
struct RunEnd {
  std::exception_ptr failure{};  // none: the leader ended it
  std::vector<int> lost{};       // ranks that failed, or hang
  bool hung = false;             // some of them, which were given up
};

// Loads a model on devices, one rank each, and takes steps together until the leader ends it or a rank fails. It
// belongs to its own threads, with all that they may touch: a rank that does not return is given up, and keeps the run
// alive.
//
// Work is what a rank has of the model: Work(pipeline, model, options) loads it, work.take(pipeline, step, taken)
// computes a Work::Step, which is a copy of what it needs of requests and can be empty(), into a Work::Taken. Devices
// with memory of their own are warmed up by work.warm_up(pipeline, options), so that steps take none from the driver; those
// that may compute and exchange at once find out when it pays in work.time_products(pipeline, options).
template <class Work>
class ModelRun {
 public:
  using D = typename Work::Device;
  using Transport = typename Work::Transport;
  using Leader = RunLeader<Work>;
  using Meters = std::vector<std::shared_ptr<DeviceMeter>>;

  // Returns when the run has ended. The leader is called meanwhile, not after. Each device has a meter.
  static RunEnd run(std::vector<D> devices, RunTransports<Transport> transports, Meters meters,
                    std::shared_ptr<const RunModel> model, const EngineOptions& options, Leader leader) {
    std::shared_ptr<ModelRun> run(new ModelRun(std::move(devices), std::move(transports), std::move(meters),
                                               std::move(model), options, std::move(leader)));
    std::thread thread([run] { run->work(); });
    const bool ended = run->wait();
    ended ? thread.join() : thread.detach();
    return run->end(!ended);
  }

 private:
  using Scheduler = TaskScheduler<StaticAllocation, D>;

  ModelRun(std::vector<D> devices, RunTransports<Transport> transports, Meters meters,
           std::shared_ptr<const RunModel> model, const EngineOptions& options, Leader leader)
      : transports_(std::move(transports)),
        meters_(std::move(meters)),
        model_(std::move(model)),
        options_(options),
        leader_(std::move(leader)),
        returned_(devices.size()),
        scheduler_(std::move(devices), StaticAllocation{}, {.trace = options.trace, .log = options.log}) {}

  void work() {
    std::exception_ptr failure;
    try {
      scheduler_.run_on_every_device([&](auto& rank) {
        std::exception_ptr thrown;
        try {
          serve_on(rank);
        } catch (...) {
          thrown = std::current_exception();
        }
        returned(rank.rank(), thrown);
        if (thrown) std::rethrow_exception(thrown);
      });
    } catch (...) {
      failure = std::current_exception();
    }
    std::lock_guard lock(mutex_);
    if (failure) failure_ = failure;
    ended_ = true;
    changed_.notify_all();
  }

  template <class Rank>
  void serve_on(Rank& rank) {
    std::optional<Work> work;
    Communication communication{rank, transports_.steps, {.deadline = options_.deadline}};
    {
      Communication loading{rank,
                            transports_.loading};  // with its own deadline: reading files takes longer than a step
      DataSync sync{loading};
      sync.chunking().stop();
      Pipeline pipeline{scheduler_, sync, loading};
      work.emplace(pipeline, *model_, options_);
      if constexpr (HasOwnMemory<D>) work->warm_up(pipeline, options_);
      pipeline.stream().synchronize();
      loading.barrier();
    }
    DataSync sync{communication};
    Pipeline pipeline{scheduler_, sync, communication};
    if constexpr (HasSecondStream<D>)
      if (sync.chunking().times(communication, pipeline.stream())) work->time_products(pipeline, options_);
    typename Work::Taken taken;
    auto& meter = *meters_[static_cast<std::size_t>(rank.rank())];
    const bool leads = rank.rank() == 0;
    if (leads) lead([&] { leader_.loaded(); });
    for (std::uint64_t number = 0;; ++number) {
      if (leads) lead([&] { next(); });
      communication.barrier();  // the step is there
      if (!more_) return;
      if (checks_) run_self_check(communication, pipeline.stream(), check_);
      const bool works = !step_.empty();
      if (works) {
        meter.begin();
        communication.count(&meter.collectives());
        if (options_.before_step) options_.before_step(pipeline.device().index(), number);
        work->take(pipeline, step_, taken);
        pipeline.stream().synchronize();  // what fails on the device is a failure of this step
      }
      communication.barrier();  // nobody reads the step any more
      if (works) {
        communication.count(nullptr);  // to wait for work is not to wait for peers
        meter.end();
      }
      if (leads && works) lead([&] { leader_.took(taken); });
      if (leads && checks_) lead([&] { leader_.checked(check_); });
    }
  }

  // On rank 0, while the others wait for it.
  void next() {
    more_ = leader_.next(step_);
    checks_ = options_.self_check.count() > 0 && step_.empty() && Clock::now() >= next_check_;
    if (!checks_) return;
    next_check_ = Clock::now() + options_.self_check;
    std::vector<std::string> names;
    for (int i = 0; i < scheduler_.device_count(); ++i) names.push_back(scheduler_.device(i).name());
    check_ = SelfCheck::of(std::move(names));
  }

  // On rank 0.
  template <class Call>
  void lead(Call&& call) {
    std::lock_guard lock(leader_mutex_);
    if (given_up_) throw Error(Fault::peer_failed, "this run was given up");
    call();
    std::lock_guard progress(mutex_);
    ++progress_;
  }

  void returned(int rank, const std::exception_ptr& thrown) {
    std::lock_guard lock(mutex_);
    returned_[static_cast<std::size_t>(rank)] = true;
    if (thrown) culprits_.note(rank, thrown);
    if (thrown && !failure_) failure_ = thrown;
    changed_.notify_all();
  }

  // True when all ranks have returned. False when some did not, a while after another had failed; or, where there is
  // only one and nobody who waits for it, when a whole step took ten times what ranks wait for each other.
  bool wait() {
    std::unique_lock lock(mutex_);
    const bool alone = returned_.size() == 1;
    std::chrono::nanoseconds waited{0};
    auto progress = progress_;
    while (!ended_) {
      if (!alone && !failure_) {
        changed_.wait(lock, [this] { return ended_ || failure_; });
        continue;
      }
      if (std::exchange(progress, progress_) != progress_) waited = {};
      const bool loads = progress == 0;
      const auto most = failure_ && !loads ? to_return() : 10 * options_.deadline;
      if (waited >= most && (failure_ || !loads)) return give_up(lock);
      // A nap that took much longer than it should: the machine stood still, and the ranks with it.
      using namespace std::chrono_literals;
      const auto nap = std::min<std::chrono::nanoseconds>(options_.deadline / 16, failure_ ? 50ms : 1s);
      const auto before = Clock::now();
      changed_.wait_for(lock, nap);
      waited += std::min<std::chrono::nanoseconds>(Clock::now() - before, nap + 100ms);
    }
    return true;
  }
  // How long the other ranks may take to return when one has failed: they learn it where they wait for it. Where their
  // devices wait for each other, too, those learn it when their own deadline is over.
  std::chrono::nanoseconds to_return() const {
    return (HasOwnMemory<D> ? options_.deadline : std::chrono::nanoseconds(0)) + options_.deadline / 4;
  }
  bool give_up(std::unique_lock<std::mutex>& lock) {
    lock.unlock();
    {
      std::lock_guard leader(leader_mutex_);
      given_up_ = true;
    }
    lock.lock();
    return false;
  }

  RunEnd end(bool gave_up) {
    std::lock_guard lock(mutex_);
    RunEnd end{.failure = failure_, .hung = gave_up};
    if (gave_up) {
      for (std::size_t i = 0; i < returned_.size(); ++i) {
        if (!returned_[i]) end.lost.push_back(static_cast<int>(i));
      }
      if (!failure_) end.failure = std::make_exception_ptr(Error(Fault::timeout, "a step did not end"));
    }
    const int failed = gave_up ? culprits_.thrower() : culprits_.failed();
    if (failed >= 0) end.lost.push_back(failed);
    std::ranges::sort(end.lost);
    return end;
  }

  const RunTransports<Transport> transports_;
  const Meters meters_;
  const std::shared_ptr<const RunModel> model_;
  const EngineOptions options_;
  const Leader leader_;
  typename Work::Step step_;           // of rank 0 between two barriers, else read by all
  bool more_ = true, checks_ = false;  // as the step
  SelfCheck check_;
  Clock::time_point next_check_{};  // of rank 0

  std::mutex leader_mutex_;  // of what follows; before the other one
  bool given_up_ = false;

  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::vector<bool> returned_;
  std::exception_ptr failure_;
  RunCulprits culprits_;
  bool ended_ = false;
  std::uint64_t progress_ = 0;

  Scheduler scheduler_;  // last: its threads use the others
};

}  // namespace troika::serving
