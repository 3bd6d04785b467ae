// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/threads.hpp>
#include <troika/models/encoder.hpp>
#include <troika/pipeline.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/engine_devices.hpp>
#include <troika/sync/data_sync.hpp>

namespace troika::serving {

// One encoder on a group of devices: a request is a text, and ends with its embedding. What waits goes through the
// devices together, up to `step_tokens` at once; clients take turns.
//
// When a device fails, the model is split anew over those that are left, and the texts are read again. What fails twice
// ends as failed.
template <Device D>
class EncoderEngine final : public Engine {
 public:
  // Loads the model, or throws what loading throws.
  EncoderEngine(std::vector<D> devices, const std::filesystem::path& model, EngineOptions options = {})
      : options_(std::move(options)),
        config_(models::ModelConfig::load(model)),
        weights_(models::Weights::open(model)),
        devices_(std::move(devices)) {
    config_.normalize_embedding = false;  // the length is the business of who asks
    context_ =
        std::min(config_.max_sequence.value_or(config_.max_position_embeddings), config_.max_position_embeddings);
    if (options_.context > 0) context_ = std::min(context_, options_.context);
    load_model();
    report(0);
    thread_ = std::thread([this] { serve(); });
  }
  EncoderEngine(const EncoderEngine&) = delete;
  EncoderEngine& operator=(const EncoderEngine&) = delete;
  ~EncoderEngine() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  std::shared_ptr<Generation> start(GenerationRequest request, GenerationEvents events) override {
    const auto tokens = static_cast<std::int64_t>(request.prompt.size());
    expects(tokens >= 1 && tokens <= context_, [&] {
      return "a text of " + std::to_string(tokens) + " tokens; valid here is 1 to " + std::to_string(context_);
    });
    for (const auto id : request.prompt) {
      expects(id >= 0 && id < config_.vocab_size, [&] {
        return "token " + std::to_string(id) + " is none of the model's, which are 0 to " +
               std::to_string(config_.vocab_size - 1);
      });
    }
    auto text = std::make_shared<Text>(std::move(request), std::move(events));
    {
      std::lock_guard lock(mutex_);
      if (stopping_ || stopped_)
        throw Error(Fault::peer_failed, "the engine has stopped" + (reason_.empty() ? "" : ": " + reason_));
      if (load_.waiting >= options_.most_waiting) {
        throw Error(Fault::out_of_memory, std::to_string(load_.waiting) + " texts wait already; try again later");
      }
      waiting_[text->request.client].push_back(text);
      ++load_.waiting;
    }
    changed_.notify_all();
    return text;
  }

  std::int64_t context() const override { return context_; }
  EngineLoad load() const override {
    std::lock_guard lock(mutex_);
    return load_;
  }

 private:
  using Scheduler = TaskScheduler<StaticAllocation, D>;

  struct Text final : Generation {
    Text(GenerationRequest r, GenerationEvents e) : request(std::move(r)), events(std::move(e)) {}
    void cancel() noexcept override { cancelled = true; }
    void end(GenerationEnd end) const {
      end.prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
      end.waited = (began == Clock::time_point{} ? Clock::now() : began) - arrived;
      if (events.on_end) events.on_end(end);
    }
    const GenerationRequest request;
    const GenerationEvents events;
    const Clock::time_point arrived = Clock::now();
    Clock::time_point began{};
    std::atomic<bool> cancelled{false};
  };
  using Texts = std::vector<std::shared_ptr<Text>>;

  // Each rank keeps its encoder from run to run.
  template <class F>
  auto on_every_device(F f) {
    devices_.begin_run();
    return scheduler_->run_on_every_device([&](auto& rank) {
      return devices_.watch(rank.rank(), [&] {
        Communication communication{rank, Threads{}};
        DataSync sync{communication};
        Pipeline pipeline{*scheduler_, sync, communication};
        return f(pipeline, encoders_[static_cast<std::size_t>(rank.rank())]);
      });
    });
  }

  void load_model() {
    encoders_.clear();  // before the lanes and the memory of their devices
    scheduler_.emplace(devices_.all(), StaticAllocation{},
                       SchedulerOptions{.trace = options_.trace, .log = options_.log});
    encoders_.resize(static_cast<std::size_t>(devices_.size()));
    on_every_device(
        [&](auto& pipeline, auto& encoder) { encoder.emplace(pipeline, config_, weights_, options_.progress); });
  }

  void serve() {
    while (true) {
      auto texts = next_texts();
      if (!texts) break;
      if (texts->empty()) continue;
      report(texts->size());
      const bool goes_on = run(*texts);
      report(0);
      if (!goes_on) break;
    }
    Texts left;
    {
      std::lock_guard lock(mutex_);
      stopped_ = load_.stopped = true;
      load_.ready = false;
      load_.waiting = 0;
      for (auto& [client, texts] : waiting_) left.insert(left.end(), texts.begin(), texts.end());
      waiting_.clear();
    }
    for (const auto& text : left)
      text->end({.finish = reason_.empty() ? Finish::cancelled : Finish::failed, .error = reason_});
  }

  // Those that the next pass takes; none when the engine stops.
  std::optional<Texts> next_texts() {
    Texts texts, over;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return std::nullopt;
    const auto now = Clock::now();
    for (std::int64_t tokens = 0; !waiting_.empty();) {
      auto next = waiting_.upper_bound(turn_);  // whose turn it is after the last one
      if (next == waiting_.end()) next = waiting_.begin();
      auto& [client, queue] = *next;
      const auto& text = queue.front();
      const bool gone = text->cancelled || text->request.deadline <= now;
      if (!gone) {
        tokens += static_cast<std::int64_t>(text->request.prompt.size());
        if (!texts.empty() && tokens > options_.step_tokens) break;
        text->began = now;
      }
      (gone ? over : texts).push_back(text);
      turn_ = client;
      queue.pop_front();
      if (queue.empty()) waiting_.erase(next);
      --load_.waiting;
    }
    lock.unlock();
    for (const auto& text : over) text->end({.finish = text->cancelled ? Finish::cancelled : Finish::expired});
    return texts;
  }

  // False when no device is left.
  bool run(const Texts& texts) {
    std::vector<std::span<const std::int32_t>> ids;
    for (const auto& text : texts) ids.emplace_back(text->request.prompt);
    std::string error;
    bool goes_on = true;
    for (int attempt = 0; goes_on && attempt < 2; ++attempt) {
      try {
        const auto step = steps_++;
        auto vectors = std::move(on_every_device([&](auto& pipeline, auto& encoder) {
          if (options_.before_step) options_.before_step(pipeline.device().index(), step);
          return encoder->embed(pipeline, ids);
        })[0]);
        const auto end = Clock::now();
        for (const auto& text : texts) prompt_tokens_ += text->request.prompt.size();
        for (std::size_t i = 0; i < texts.size(); ++i) {
          texts[i]->end({.finish = texts[i]->cancelled ? Finish::cancelled : Finish::stop,
                         .devices = devices_.names(),
                         .prompt_time = end - texts[i]->began,
                         .embedding = std::move(vectors[i])});
        }
        return true;
      } catch (const std::exception& failure) {
        error = failure.what();
        options_.log.write(LogLevel::error, "a pass over " + std::to_string(texts.size()) + " texts failed: " + error);
        if (devices_.culprits().request_to_blame()) break;
        goes_on = recover(error);
      }
    }
    for (const auto& text : texts) text->end({.finish = Finish::failed, .error = error, .devices = devices_.names()});
    return goes_on;
  }

  // Splits the model over the devices that are left.
  bool recover(std::string reason) {
    while (true) {
      const int failed = devices_.culprits().failed();
      if (failed >= 0) {
        std::lock_guard lock(mutex_);
        const auto name = devices_.drop(failed);
        options_.log.write(LogLevel::error, name + " failed and is left out; " + std::to_string(devices_.size()) +
                                                " devices are left: " + reason);
        reason_ = devices_.size() > 0 ? "" : reason;
      }
      ++recoveries_;
      if (devices_.size() == 0) return false;
      try {
        load_model();
        return true;
      } catch (const std::exception& error) {
        reason = error.what();
        if (devices_.culprits().failed() >= 0) continue;
        std::lock_guard lock(mutex_);
        reason_ = reason;
        return false;
      }
    }
  }

  void report(std::size_t running) {
    std::lock_guard lock(mutex_);
    load_.ready = devices_.size() > 0;
    load_.devices = devices_.size();
    load_.running = static_cast<std::int64_t>(running);
    load_.memory_bytes = devices_.memory_bytes();
    load_.prompt_tokens = prompt_tokens_;
    load_.steps = steps_;
    load_.recoveries = recoveries_;
  }

  const EngineOptions options_;
  models::ModelConfig config_;
  const models::Weights weights_;
  std::int64_t context_ = 0;

  // Of the engine's thread
  EngineDevices<D> devices_;
  std::optional<Scheduler> scheduler_;
  std::vector<std::optional<models::Encoder<D>>> encoders_;  // of each rank
  std::uint64_t prompt_tokens_ = 0, steps_ = 0, recoveries_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::deque<std::shared_ptr<Text>>> waiting_;  // by client, none of them empty
  std::string turn_;                                                  // the client that was taken from last
  EngineLoad load_;
  bool stopping_ = false, stopped_ = false;
  std::string reason_;
  std::thread thread_;
};

}  // namespace troika::serving
