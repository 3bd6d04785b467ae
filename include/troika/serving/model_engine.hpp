// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <troika/observe/log.hpp>
#include <troika/serving/decoder_work.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/engine_devices.hpp>
#include <troika/serving/model_run.hpp>
#include <troika/serving/step_planner.hpp>

namespace troika::serving {

// One decoder on a group of devices: all of them work on every step. Rank 0 decides what a step computes and all ranks
// compute their part of it; between two steps nobody reads what the planner changes.
//
// When a device fails, the model is split anew over those that are left, and what ran goes on from the tokens that it
// had: no answer ends in the middle without saying so. Only a request that was part of two failed steps, or when no
// device is left, ends as failed. A device that hangs counts as failed, and is never waited for longer than the
// deadline of a step.
//
// Ranks talk by the transports.
template <Device D, class Transport = Threads>
class ModelEngine final : public Engine {
 public:
  // Loads the model, or throws what loading throws.
  ModelEngine(std::vector<D> devices, const std::filesystem::path& model, EngineOptions options = {},
              RunTransports<Transport> transports = {})
      : options_(std::move(options)),
        transports_(std::move(transports)),
        model_(open(model, options_)),
        devices_(std::move(devices)),
        planner_({.pages = model_->pages,
                  .context = model_->context,
                  .step_tokens = options_.step_tokens,
                  .mixed_tokens = options_.mixed_tokens,
                  .most_running = options_.most_running,
                  .devices = devices_.names()}) {
    expects(options_.deadline.count() > 0, "the deadline of a step is above zero");
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
    expects(tokens >= 1 && tokens + drawn < context(), [&] {
      return "a prompt of " + std::to_string(tokens) + " tokens" +
             (drawn > 0 ? " and an answer of " + std::to_string(drawn) : "") + "; valid here is 1 to " +
             std::to_string(context() - 1 - drawn);
    });
    for (const auto* ids : {&request.prompt, &request.drawn}) {
      for (const auto id : *ids) {
        expects(id >= 0 && id < config().vocab_size, [&] {
          return "token " + std::to_string(id) + " is none of the model's, which are 0 to " +
                 std::to_string(config().vocab_size - 1);
        });
      }
    }
    expects(request.max_tokens == 0 || request.max_tokens > drawn, [&] {
      return "max_tokens is 0 (all that fit) or above the " + std::to_string(drawn) + " that are drawn, not " +
             std::to_string(request.max_tokens);
    });
    AnySampler::check(request.sampling);
    constexpr int most = Logprobs<Communication<Threads>>::most_likeliest;
    expects(!request.logprobs || (*request.logprobs >= 0 && *request.logprobs <= most), [&] {
      return "logprobs of 0 to " + std::to_string(most) + " tokens, not " + std::to_string(*request.logprobs);
    });
    auto sequence = std::make_shared<Sequence>(std::move(request), std::move(events));
    {
      std::lock_guard lock(mutex_);
      if (stopped_ || stopping_)
        throw Error(Fault::peer_failed, "the engine has stopped" + (reason_.empty() ? "" : ": " + reason_));
      const auto waiting = load_.waiting + static_cast<std::int64_t>(inbox_.size());
      if (waiting >= options_.most_waiting) {
        throw Error(Fault::out_of_memory, std::to_string(waiting) + " requests wait already; try again later");
      }
      const auto& client = sequence->request.client;
      const auto wait = planner_.backlog().expected_wait(client);
      if (sequence->request.drawn.empty() && wait > sequence->request.max_wait) {
        throw Error(Fault::out_of_memory, "it would take about " + std::to_string(std::llround(wait.count() * 1e3)) +
                                              " ms to begin, which is too late; try again later");
      }
      sequence->place = planner_.backlog().join(client);
      inbox_.push_back(sequence);
    }
    changed_.notify_all();
    return sequence;
  }

  std::int64_t context() const override { return model_->context; }
  const models::ModelConfig& config() const { return model_->config; }
  EnginePlace place() const override {
    std::lock_guard lock(mutex_);
    return {.groups = {devices_.group(load_)}};
  }
  EngineLoad load() const override {
    std::lock_guard lock(mutex_);
    auto load = load_;
    load.waiting += static_cast<std::int64_t>(inbox_.size());
    return load;
  }
  std::vector<DeviceState> device_states() const override {
    std::lock_guard lock(mutex_);
    return devices_.states();
  }
  SelfCheck self_check() const override {
    std::lock_guard lock(mutex_);
    return self_check_;
  }

 private:
  using Work = DecoderWork<D, Transport>;
  using AnySampler = Sampler<Communication<Threads>>;

  static std::shared_ptr<const RunModel> open(const std::filesystem::path& path, const EngineOptions& options) {
    auto config = models::ModelConfig::load(path);
    const std::int64_t most = config.max_position_embeddings, context = options.context_of(most);
    expects(context >= 2, [&] {
      return "a context of " + std::to_string(context) + " tokens; this model takes 2 to " + std::to_string(most);
    });
    return std::make_shared<RunModel>(
        RunModel{std::move(config), models::Weights::open(path), context, options.pages_of(context)});
  }
  void serve() {
    std::string reason;
    while (true) {
      const auto end = ModelRun<Work>::run(devices_.left(), transports_, devices_.meters(), model_, options_,
                                           {[this] { report(true); }, [this](Step& step) { return next_step(step); },
                                            [this](const typename Work::Taken& taken) { took(taken); },
                                            [this](const SelfCheck& check) { keep(check); }});
      if (!end.failure) break;
      reason = detail::what_of(end.failure);
      if (!recover(end, reason)) break;
    }
    std::vector<std::shared_ptr<Sequence>> left;
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
      reason_ = reason;
      load_.ready = false;
      load_.stopped = true;
      left.swap(inbox_);
    }
    for (auto& sequence : left) planner_.add(std::move(sequence));
    planner_.end_all(reason.empty() ? Finish::cancelled : Finish::failed, reason, Clock::now());
    changed_.notify_all();
  }

  // The leader of a run: on its rank 0, while the others wait for it.
  bool next_step(Step& step) {
    // Ranks that wait for work meet so often, well before their deadline.
    const auto tick = std::min<std::chrono::nanoseconds>(std::chrono::seconds(1), options_.deadline / 4);
    std::unique_lock lock(mutex_);
    if (idle_) changed_.wait_for(lock, tick, [this] { return stopping_ || !inbox_.empty(); });
    if (stopping_) return false;
    auto arrived = std::exchange(inbox_, {});
    lock.unlock();
    for (auto& sequence : arrived) planner_.add(std::move(sequence));
    step.assign(planner_.plan(Clock::now()));
    idle_ = step.empty();
    report(true);
    return true;
  }
  void took(const typename Work::Taken& taken) {
    planner_.finish(taken.tokens, Clock::now(), taken.logprobs);
    ++steps_;
  }
  void keep(const SelfCheck& check) {
    std::lock_guard lock(mutex_);
    self_check_ = check;
  }

  void report(bool ready) {
    std::lock_guard lock(mutex_);
    const auto& pool = planner_.pool();
    load_ = {.ready = ready,
             .devices = devices_.size(),
             .running = planner_.running(),
             .waiting = planner_.waiting(),
             .pages_used = pool.used(),
             .pages = pool.size(),
             .memory_bytes = devices_.memory_bytes(),
             .gpu_bytes = devices_.gpu_bytes(),
             .prompt_tokens = planner_.prompt_tokens(),
             .reused_tokens = planner_.reused_tokens(),
             .tokens = planner_.drawn_tokens(),
             .steps = steps_,
             .preemptions = planner_.preemptions(),
             .recoveries = recoveries_};
    changed_.notify_all();
  }

  // True where the engine can go on: on the devices that are left, or on the same where the requests were at fault.
  bool recover(const RunEnd& end, const std::string& reason) {
    std::string lost = "a step failed and is given up";
    {
      std::lock_guard lock(mutex_);
      const bool loaded = load_.ready || recoveries_ > 0;
      load_.ready = false;
      if (!loaded) failure_ = end.failure;
      if (!loaded || stopping_) return false;
      if (!end.lost.empty()) lost = devices_.lose(end.lost, end.hung);
    }
    planner_.restart(reason, end.lost.empty(), devices_.names(), Clock::now());
    idle_ = false;
    options_.log.write(LogLevel::error, lost + ": " + reason);
    ++recoveries_;
    return devices_.size() > 0;
  }

  const EngineOptions options_;
  const RunTransports<Transport> transports_;
  const std::shared_ptr<const RunModel> model_;
  EngineDevices<D> devices_;  // changed with the mutex held

  // Of rank 0, and of the engine's thread while no rank runs.
  StepPlanner planner_;
  bool idle_ = false;
  std::uint64_t steps_ = 0, recoveries_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Sequence>> inbox_;
  EngineLoad load_;
  SelfCheck self_check_;
  bool stopping_ = false, stopped_ = false;
  std::string reason_;
  std::exception_ptr failure_;
  std::thread thread_;
};
}  // namespace troika::serving
