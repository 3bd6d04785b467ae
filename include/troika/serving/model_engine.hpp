// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/threads.hpp>
#include <troika/models/decoder.hpp>
#include <troika/observe/log.hpp>
#include <troika/observe/trace.hpp>
#include <troika/pipeline.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/step_planner.hpp>
#include <troika/sync/data_sync.hpp>

namespace troika::serving {

// One decoder on a group of devices: all of them work on every step. Rank 0 decides what a step computes and all ranks
// compute their part of it; between two steps nobody reads what the planner changes.
//
// When a device fails, the model is split anew over those that are left, and what ran goes on from the tokens that it had: no
// answer ends in the middle without saying so. Only a request that was part of two failed steps, or when no device is left,
// ends as failed.
template <Device D>
class ModelEngine final : public Engine {
 public:
  // Loads the model, or throws what loading throws.
  ModelEngine(std::vector<D> devices, const std::filesystem::path& model, EngineOptions options = {})
      : options_(std::move(options)),
        config_(models::ModelConfig::load(model)),
        weights_(models::Weights::open(model)),
        devices_(std::move(devices)),
        planner_(planner_options()) {
    expects(!devices_.empty(), "an engine needs at least 1 device");
    expects(options_.most_waiting >= 1, "at least 1 request may wait");
    thread_ = std::thread([this] { serve(); });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return load_.ready || stopped_; });
    if (stopped_) {
      lock.unlock();
      thread_.join();
      std::rethrow_exception(failure_);
    }
  }
  ModelEngine(const ModelEngine&) = delete;
  ModelEngine& operator=(const ModelEngine&) = delete;
  ~ModelEngine() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  std::shared_ptr<Generation> start(GenerationRequest request, GenerationEvents events) override {
    const auto tokens = static_cast<std::int64_t>(request.prompt.size());
    const auto drawn = static_cast<std::int64_t>(request.drawn.size());
    expects(tokens >= 1 && tokens + drawn < context_, [&] {
      return "a prompt of " + std::to_string(tokens) + " tokens" + (drawn > 0 ? " and an answer of " + std::to_string(drawn) : "") +
             "; valid here is 1 to " + std::to_string(context_ - 1 - drawn);
    });
    for (const auto* ids : {&request.prompt, &request.drawn}) {
      for (const auto id : *ids) {
        expects(id >= 0 && id < config_.vocab_size, [&] {
          return "token " + std::to_string(id) + " is none of the model's, which are 0 to " + std::to_string(config_.vocab_size - 1);
        });
      }
    }
    expects(request.max_tokens == 0 || request.max_tokens > drawn, [&] {
      return "max_tokens is 0 (all that fit) or above the " + std::to_string(drawn) + " that are drawn, not " + std::to_string(request.max_tokens);
    });
    AnySampler::check(request.sampling);
    auto sequence = std::make_shared<Sequence>(std::move(request), std::move(events));
    {
      std::lock_guard lock(mutex_);
      if (stopped_ || stopping_) throw Error(Fault::peer_failed, "the engine has stopped" + (reason_.empty() ? "" : ": " + reason_));
      const auto waiting = load_.waiting + static_cast<std::int64_t>(inbox_.size());
      if (waiting >= options_.most_waiting) {
        throw Error(Fault::out_of_memory, std::to_string(waiting) + " requests wait already; try again later");
      }
      inbox_.push_back(sequence);
    }
    changed_.notify_all();
    return sequence;
  }

  std::int64_t context() const override { return context_; }
  const models::ModelConfig& config() const { return config_; }
  EngineLoad load() const override {
    std::lock_guard lock(mutex_);
    auto load = load_;
    load.waiting += static_cast<std::int64_t>(inbox_.size());
    return load;
  }

 private:
  using Scheduler = TaskScheduler<StaticAllocation, D>;
  using AnySampler = Sampler<Communication<Threads>>;
  static constexpr std::chrono::seconds idle_tick{1};  // ranks that wait for work meet so often, well before their deadline

  PlannerOptions planner_options() {
    const std::int64_t most = config_.max_position_embeddings;
    context_ = options_.context > 0 ? options_.context : std::min<std::int64_t>(most, 4096);
    expects(context_ >= 2 && context_ <= most, [&] {
      return "a context of " + std::to_string(context_) + " tokens; this model takes 2 to " + std::to_string(most);
    });
    const auto tokens = options_.kv_tokens > 0 ? options_.kv_tokens : 4 * context_;
    return {.pages = (tokens + kv_page - 1) / kv_page,
            .context = context_,
            .step_tokens = options_.step_tokens,
            .mixed_tokens = options_.mixed_tokens,
            .most_running = options_.most_running,
            .devices = names()};
  }
  std::string names() const {
    std::string text;
    for (const auto& device : devices_) text += (text.empty() ? "" : "+") + device.name();
    return text;
  }

  void serve() {
    std::string reason;
    while (true) {
      try {
        run();
        break;
      } catch (const std::exception& error) {
        reason = error.what();
        if (!recover(reason)) break;
      }
    }
    std::vector<std::shared_ptr<Sequence>> left;
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
      reason_ = reason;
      load_.ready = false;
      left.swap(inbox_);
    }
    for (auto& sequence : left) planner_.add(std::move(sequence));
    planner_.end_all(reason.empty() ? Finish::cancelled : Finish::failed, reason, Clock::now());
    changed_.notify_all();
  }

  // Until the engine stops, or a rank fails.
  void run() {
    lost_ = suspect_ = -1;
    to_blame_ = false;
    Scheduler scheduler{devices_, StaticAllocation{}, {.trace = options_.trace, .log = options_.log}};
    scheduler.run_on_every_device([&](auto& rank) {
      try {
        serve_on(scheduler, rank);
      } catch (const Error& error) {
        // Who fails because of another says which; who is at fault itself has no rank in its error, or its own.
        if (error.rank() < 0 || error.rank() == rank.rank())
          note_failure(rank.rank(), error.fault() == Fault::invalid_argument);
        else
          note(suspect_, error.rank());
        throw;
      } catch (...) {
        note_failure(rank.rank(), false);
        throw;
      }
    });
  }

  template <class Rank>
  void serve_on(Scheduler& scheduler, Rank& rank) {
    Communication communication{rank, Threads{}};
    DataSync sync{communication};
    Pipeline pipeline{scheduler, sync, communication};
    const models::Decoder decoder(pipeline, config_, weights_, {.context = context_, .kv_type = options_.kv_type}, options_.progress);
    auto memory = decoder.make_memory(pipeline.device(), planner_.pool().size());
    const bool leads = rank.rank() == 0;
    communication.barrier();
    if (leads) report(true);

    AnySampler sampler(communication);
    models::Batch batch;
    std::vector<std::int32_t> drawn;
    for (std::uint64_t step = 0;; ++step) {
      if (leads) next_step();
      communication.barrier();  // the step is there
      if (done_) return;
      batch.clear();
      drawn.clear();
      if (!step_.empty()) {
        if (options_.before_step) options_.before_step(pipeline.device().index(), step);
        take_step(pipeline, decoder, memory, sampler, batch, drawn);
      }
      communication.barrier();  // nobody reads the step or the sequences any more
      if (leads && !step_.empty()) {
        planner_.finish(drawn, Clock::now());
        ++steps_;
      }
    }
  }

  // What a rank computes of a step; `drawn` gets the tokens of the pieces that draw.
  template <class Pipeline>
  void take_step(Pipeline& pipeline, const models::Decoder<D>& decoder, KvMemory<D>& memory, AnySampler& sampler, models::Batch& batch,
                 std::vector<std::int32_t>& drawn) {
      for (const auto& piece : step_) {
        const auto& s = *piece.sequence;
        const auto tokens = std::span(s.tokens).subspan(static_cast<std::size_t>(s.cached), static_cast<std::size_t>(piece.count));
        batch.add(tokens, s.cached, s.pages, piece.draws ? 1 : 0);
      }
    auto logits = decoder.forward(pipeline, batch, memory);
    for (const auto& piece : step_) {
      if (!piece.draws) continue;
      const auto& s = *piece.sequence;
      const auto row = static_cast<std::int64_t>(drawn.size());
      sampler.set(s.request.sampling);
      sampler.penalise(logits, s.tokens, row);
      drawn.push_back(sampler(logits, static_cast<std::uint64_t>(s.drawn()), pipeline.stream(), row));
    }
  }

  // On rank 0, while the others wait for it.
  void next_step() {
    std::unique_lock lock(mutex_);
    if (step_is_idle_) changed_.wait_for(lock, idle_tick, [this] { return stopping_ || !inbox_.empty(); });
    done_ = stopping_;
    auto arrived = std::exchange(inbox_, {});
    lock.unlock();
    for (auto& sequence : arrived) planner_.add(std::move(sequence));
    step_ = planner_.plan(Clock::now());
    step_is_idle_ = step_.empty();
    report(true);
  }

  void report(bool ready) {
    std::lock_guard lock(mutex_);
    std::int64_t bytes = 0;
    for (const auto& device : devices_) bytes += static_cast<std::int64_t>(device.memory_reserved());
    const auto& pool = planner_.pool();
    load_ = {.ready = ready,
             .devices = static_cast<int>(devices_.size()),
             .running = planner_.running(),
             .waiting = planner_.waiting(),
             .pages_used = pool.used(),
             .pages = pool.size(),
             .memory_bytes = bytes,
             .prompt_tokens = planner_.prompt_tokens(),
             .reused_tokens = planner_.reused_tokens(),
             .tokens = planner_.drawn_tokens(),
             .steps = steps_,
             .preemptions = planner_.preemptions(),
             .recoveries = recoveries_};
    changed_.notify_all();
  }

  static bool note(std::atomic<int>& first, int rank) {
    int none = -1;
    return first.compare_exchange_strong(none, rank);
  }
  void note_failure(int rank, bool to_blame) {
    if (note(lost_, rank)) to_blame_ = to_blame;
  }

  // True where the engine can go on: on the devices that are left, or on the same where the requests were at fault.
  bool recover(const std::string& reason) {
    bool loaded;
    {
      std::lock_guard lock(mutex_);
      loaded = load_.ready || recoveries_ > 0;
      load_.ready = false;
      if (!loaded) failure_ = std::current_exception();
      if (!loaded || stopping_) return false;
    }
    const auto lost = lost_ >= 0 ? lost_.load() : suspect_.load();  // a rank that came too late need not know it
    const bool lose = !to_blame_ && lost >= 0;
    std::string name;
    if (lose) {
      name = devices_[static_cast<std::size_t>(lost)].name();
      std::lock_guard lock(mutex_);
      devices_.erase(devices_.begin() + lost);
    }
    planner_.restart(reason, to_blame_, names(), Clock::now());
    step_ = {};
    step_is_idle_ = false;
    if (lose) {
      options_.log.write(LogLevel::error, name + " failed and is left out; " + std::to_string(devices_.size()) + " devices are left: " + reason);
    } else {
      options_.log.write(LogLevel::error, "a step failed and is given up: " + reason);
    }
    ++recoveries_;
    return !devices_.empty();
  }

  EngineOptions options_;
  models::ModelConfig config_;
  models::Weights weights_;
  std::vector<D> devices_;
  std::int64_t context_ = 0;

  // Of rank 0, and of the engine's thread while no rank runs. The ranks read them between the two barriers of a step.
  StepPlanner planner_;
  std::span<const Piece> step_;
  bool done_ = false, step_is_idle_ = false;
  std::uint64_t steps_ = 0, recoveries_ = 0;
  std::atomic<int> lost_{-1}, suspect_{-1};  // of the latest failure: who threw, and whom others waited for
  std::atomic<bool> to_blame_{false};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Sequence>> inbox_;
  EngineLoad load_;
  bool stopping_ = false, stopped_ = false;
  std::string reason_;
  std::exception_ptr failure_;
  std::thread thread_;
};
template <Device D>
ModelEngine(std::vector<D>, const std::filesystem::path&, EngineOptions = {}) -> ModelEngine<D>;

}  // namespace troika::serving
