// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <iterator>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/observe/log.hpp>
#include <troika/scheduling/allocation.hpp>
#include <troika/scheduling/speed_meter.hpp>
#include <troika/serving/engine.hpp>

namespace troika::serving {

// Where a request went, and what was known of the groups that could take it.
struct Placement {
  Clock::time_point at{};
  int group = 0;
  int attempt = 1;  // above 1: another group had given it up
  std::vector<DeviceLoad> candidates{};
};

// The same model on several groups of devices, an engine each. A request goes to the group that the allocation picks,
// which sees groups as it sees devices; work is in tokens drawn. A group that fails takes no more: its requests go on
// elsewhere, from the tokens that they have, and end as failed only where no group is left.
//
// All members may be called from any thread.
template <Allocation A>
class Replicas final : public Engine {
 public:
  explicit Replicas(std::vector<std::unique_ptr<Engine>> engines, A allocation = A(), Log log = {})
      : allocation_(std::move(allocation)),
        log_(std::move(log)),
        groups_(engines.size()),
        engines_(std::move(engines)) {
    expects(!engines_.empty(), "replicas are at least 1 engine");
    context_ = engines_[0]->context();
    for (const auto& engine : engines_) context_ = std::min(context_, engine->context());
  }
  Replicas(const Replicas&) = delete;
  Replicas& operator=(const Replicas&) = delete;
  ~Replicas() override {
    {
      std::unique_lock lock(alive_);
      stopping_ = true;  // nothing goes on elsewhere from now on
    }
    engines_.clear();
  }

  std::shared_ptr<Generation> start(GenerationRequest request, GenerationEvents events) override {
    auto owner = std::make_shared<Request>(std::move(request), std::move(events), groups_.size());
    place(owner);
    return owner;
  }

  std::int64_t context() const override { return context_; }
  EngineLoad load() const override {
    EngineLoad sum{.stopped = true};
    for (const auto& engine : engines_) {
      const auto one = engine->load();
      sum.ready |= one.ready;
      sum.stopped &= one.stopped;
      sum.devices += one.ready ? one.devices : 0;
      for (const auto field : {&EngineLoad::running, &EngineLoad::waiting, &EngineLoad::pages_used, &EngineLoad::pages,
                               &EngineLoad::memory_bytes, &EngineLoad::gpu_bytes})
        sum.*field += one.*field;
      for (const auto field : {&EngineLoad::prompt_tokens, &EngineLoad::reused_tokens, &EngineLoad::tokens,
                               &EngineLoad::steps, &EngineLoad::preemptions, &EngineLoad::recoveries})
        sum.*field += one.*field;
    }
    return sum;
  }

  EnginePlace place() const override {
    EnginePlace place;
    const auto loads = groups();
    for (std::size_t i = 0; i < engines_.size(); ++i) {
      for (auto& group : engines_[i]->place().groups) {
        group.queued = loads[i].queued;
        group.speed = loads[i].speed;
        place.groups.push_back(std::move(group));
      }
    }
    return place;
  }

  std::vector<DeviceState> device_states() const override {
    std::vector<DeviceState> all;
    for (const auto& engine : engines_) {
      auto some = engine->device_states();
      all.insert(all.end(), std::make_move_iterator(some.begin()), std::make_move_iterator(some.end()));
    }
    return all;
  }

  // Of each group by itself; the slowest sum.
  SelfCheck self_check() const override {
    SelfCheck all;
    for (const auto& engine : engines_) {
      const auto one = engine->self_check();
      for (auto link : one.links)
        all.links.push_back({link.from + all.names.size(), link.to + all.names.size(), link.seconds});
      all.names.insert(all.names.end(), one.names.begin(), one.names.end());
      all.kernels.insert(all.kernels.end(), one.kernels.begin(), one.kernels.end());
      all.all_reduce_seconds = std::max(all.all_reduce_seconds, one.all_reduce_seconds);
      all.at = std::max(all.at, one.at);
    }
    return all;
  }

  // What the allocation sees: each group with its measured speed, its requests and their work.
  std::vector<DeviceLoad> groups() const {
    std::lock_guard lock(mutex_);
    std::vector<DeviceLoad> loads;
    for (std::size_t i = 0; i < groups_.size(); ++i) loads.push_back(load_of(i));
    return loads;
  }
  // The latest decisions, oldest first.
  std::vector<Placement> placements() const {
    std::lock_guard lock(mutex_);
    return {placements_.begin(), placements_.end()};
  }

 private:
  static constexpr std::size_t placements_kept = 256;
  static constexpr double prompt_work = 0.2;  // of a token of a prompt: many of them share one reading of the weights
  static constexpr double unknown_answer = 256;  // tokens, where a request names no limit

  struct Group {
    int queued = 0;
    double queued_work = 0;
    SpeedMeter speed{0.9};
    std::uint64_t succeeded = 0, failed = 0;
    double busy_seconds = 0;
  };

  struct Request final : Generation {
    Request(GenerationRequest r, GenerationEvents e, std::size_t groups)
        : request(std::move(r)), events(std::move(e)), tried(groups) {}
    void cancel() noexcept override {
      std::lock_guard lock(mutex);
      cancelled = true;
      if (current) current->cancel();
    }
    double work() const {
      const auto drawn = static_cast<double>(request.drawn.size());
      const double answer = request.max_tokens > 0 ? static_cast<double>(request.max_tokens) : unknown_answer;
      return prompt_work * (static_cast<double>(request.prompt.size()) + drawn) + std::max(1.0, answer - drawn);
    }

    GenerationRequest request;  // `drawn` grows with the answer; only the engine that has it changes it
    const GenerationEvents events;
    std::vector<bool> tried;  // groups
    int attempt = 0;
    std::size_t group = 0;
    double placed_work = 0;
    GenerationEnd before{};               // the times of earlier attempts
    std::mutex mutex;                     // of what follows
    std::shared_ptr<Generation> current;  // none once it is over: it has the events, which have this
    int current_attempt = 0;
    bool cancelled = false, over = false;
  };

  DeviceLoad load_of(std::size_t i, double work = 0) const {
    const auto& group = groups_[i];
    return {.device = static_cast<int>(i),
            .speed = group.speed.speed(),
            .queued = group.queued,
            .queued_work = group.queued_work,
            .task_work = work,
            .healthy = engines_[i]->load().ready,
            .succeeded = group.succeeded,
            .failed = group.failed,
            .busy_seconds = group.busy_seconds};
  }

  // To a group that can take it, or throws what the first of them said.
  void place(const std::shared_ptr<Request>& request) {
    std::exception_ptr refusal;
    while (choose(*request)) {
      try {
        const int attempt = request->attempt;  // the next one may have begun when start() returns
        auto generation = engines_[request->group]->start(request->request, events_of(request));
        std::lock_guard lock(request->mutex);
        if (request->cancelled) generation->cancel();
        if (!request->over && attempt > request->current_attempt) {
          request->current_attempt = attempt;
          request->current = std::move(generation);
        }
        return;
      } catch (const Error& error) {
        forget(*request);
        if (!refusal) refusal = std::current_exception();
        if (error.fault() == Fault::invalid_argument) break;  // it would not do anywhere
      }
    }
    if (refusal) std::rethrow_exception(refusal);
    throw Error(Fault::peer_failed, "none of the " + std::to_string(groups_.size()) + " groups of devices is ready");
  }

  // Counts the request for a group that it was not tried on. False when none is left.
  bool choose(Request& request) {
    std::lock_guard lock(mutex_);
    request.placed_work = request.work();
    std::vector<DeviceLoad> candidates;
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      if (request.tried[i]) continue;
      auto load = load_of(i, request.placed_work);
      if (load.healthy) candidates.push_back(load);
    }
    if (candidates.empty()) return false;
    const int choice = allocation_.pick(candidates);
    expects(choice >= 0 && choice < static_cast<int>(candidates.size()),
            "the allocation picked none of the candidates");
    request.group = static_cast<std::size_t>(candidates[static_cast<std::size_t>(choice)].device);
    request.tried[request.group] = true;
    auto& group = groups_[request.group];
    group.queued += 1;
    group.queued_work += request.placed_work;
    placements_.push_back({Clock::now(), static_cast<int>(request.group), ++request.attempt, std::move(candidates)});
    if (placements_.size() > placements_kept) placements_.pop_front();
    return true;
  }
  void forget(const Request& request) {
    std::lock_guard lock(mutex_);
    auto& group = groups_[request.group];
    group.queued -= 1;
    group.queued_work = group.queued == 0 ? 0 : group.queued_work - request.placed_work;
  }

  GenerationEvents events_of(const std::shared_ptr<Request>& request) {
    return {[request](std::int32_t token) {
              request->request.drawn.push_back(token);
              if (request->events.on_token) request->events.on_token(token);
            },
            [this, request](const GenerationEnd& end) { ended(request, end); }, request->events.on_logprobs};
  }

  void ended(const std::shared_ptr<Request>& request, const GenerationEnd& end) {
    forget(*request);
    measure(*request, end);
    auto whole = end;
    whole.waited += request->before.waited;
    whole.prompt_time += request->before.prompt_time;
    whole.token_time += request->before.token_time;
    if (end.finish == Finish::failed && go_on(request, whole)) return;
    {
      std::lock_guard lock(request->mutex);
      request->over = true;
      request->current.reset();
    }
    if (request->events.on_end) request->events.on_end(whole);
  }

  bool go_on(const std::shared_ptr<Request>& request, const GenerationEnd& so_far) {
    std::size_t drawn = 0;
    try {
      std::shared_lock lock(alive_);
      if (stopping_) return false;
      request->before = so_far;
      drawn = request->request.drawn.size();  // which the other engine changes from place() on
      place(request);
    } catch (const std::exception&) {
      return false;  // `so_far` says what was wrong first
    }
    log_.write(LogLevel::warning, "a request goes on elsewhere, " + std::to_string(drawn) +
                                      " tokens into its answer; " + so_far.devices + " gave it up: " + so_far.error);
    return true;
  }

  void measure(const Request& request, const GenerationEnd& end) {
    const double seconds = std::chrono::duration<double>(end.prompt_time + end.token_time).count();
    std::lock_guard lock(mutex_);
    auto& group = groups_[request.group];
    group.busy_seconds += seconds;
    if (end.finish == Finish::failed) {
      ++group.failed;
    } else if (end.finish == Finish::stop || end.finish == Finish::length) {
      ++group.succeeded;
      const double work = prompt_work * static_cast<double>(end.prompt_tokens - end.reused_tokens) +
                          static_cast<double>(end.tokens - request.before.tokens);
      if (seconds > 0) group.speed.add(work, seconds);
    }
  }

  A allocation_;
  Log log_;
  std::int64_t context_ = 0;
  mutable std::mutex mutex_;
  std::vector<Group> groups_;
  std::deque<Placement> placements_;
  std::shared_mutex alive_;  // held while a request goes on elsewhere, so that the engines stay
  bool stopping_ = false;
  std::vector<std::unique_ptr<Engine>> engines_;  // last: they call the members above until they are gone
};

}  // namespace troika::serving
