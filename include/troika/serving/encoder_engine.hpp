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
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <troika/observe/log.hpp>
#include <troika/serving/encoder_work.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/engine_devices.hpp>
#include <troika/serving/model_run.hpp>

namespace troika::serving {

// One encoder on a group of devices: a request is a text, and ends with its embedding. What waits goes through the
// devices together, up to `step_tokens` at once; clients take turns.
//
// When a device fails or hangs, the model is split anew over those that are left, and the texts are read again. What
// fails twice ends as failed.
//
// Ranks talk by the transports.
template <Device D, class Transport = Threads>
class EncoderEngine final : public Engine {
 public:
  // Loads the model, or throws what loading throws.
  EncoderEngine(std::vector<D> devices, const std::filesystem::path& model, EngineOptions options = {},
                RunTransports<Transport> transports = {})
      : options_(std::move(options)),
        transports_(std::move(transports)),
        model_(open(model, options_)),
        devices_(std::move(devices)) {
    expects(options_.deadline.count() > 0, "the deadline of a step is above zero");
    thread_ = std::thread([this] { serve(); });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return load_.ready || stopped_; });
    if (stopped_) {
      lock.unlock();
      thread_.join();
      std::rethrow_exception(failure_);
    }
  }
  EncoderEngine(const EncoderEngine&) = delete;
  EncoderEngine& operator=(const EncoderEngine&) = delete;
  ~EncoderEngine() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  std::shared_ptr<Generation> start(GenerationRequest request, GenerationEvents events) override {
    const auto tokens = static_cast<std::int64_t>(request.prompt.size());
    expects(tokens >= 1 && tokens <= context(), [&] {
      return "a text of " + std::to_string(tokens) + " tokens; valid here is 1 to " + std::to_string(context());
    });
    for (const auto id : request.prompt) {
      expects(id >= 0 && id < model_->config.vocab_size, [&] {
        return "token " + std::to_string(id) + " is none of the model's, which are 0 to " +
               std::to_string(model_->config.vocab_size - 1);
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

  std::int64_t context() const override { return model_->context; }
  EngineLoad load() const override {
    std::lock_guard lock(mutex_);
    return load_;
  }
  EnginePlace place() const override {
    std::lock_guard lock(mutex_);
    return {.groups = {devices_.group(load_)}};
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
  using Work = EncoderWork<D, Transport>;

  static std::shared_ptr<const RunModel> open(const std::filesystem::path& path, const EngineOptions& options) {
    auto config = models::ModelConfig::load(path);
    config.normalize_embedding = false;  // the length is the business of who asks
    const auto context = options.context_of(
        std::min(config.max_sequence.value_or(config.max_position_embeddings), config.max_position_embeddings));
    return std::make_shared<RunModel>(RunModel{std::move(config), models::Weights::open(path), context});
  }

  struct Text final : Generation {
    Text(GenerationRequest r, GenerationEvents e) : request(std::move(r)), events(std::move(e)) {}
    void cancel() noexcept override { cancelled = true; }
    void end(GenerationEnd end) const {
      end.prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
      end.waited = (began == Clock::time_point{} ? Clock::now() : began) - arrived;
      try {
        if (events.on_end) events.on_end(end);
      } catch (const std::exception&) {  // nobody is left to tell
      }
    }
    const GenerationRequest request;
    const GenerationEvents events;
    const Clock::time_point arrived = Clock::now();
    Clock::time_point began{};
    int failures = 0;  // of passes that it was part of
    std::atomic<bool> cancelled{false};
  };
  using Texts = std::vector<std::shared_ptr<Text>>;

  void serve() {
    std::string reason;
    while (true) {
      const auto end = ModelRun<Work>::run(
          devices_.left(), transports_, devices_.meters(), model_, options_,
          {[this] { report(); }, [this](auto& step) { return next(step); }, [this](auto& vectors) { took(vectors); },
           [this](const SelfCheck& check) { keep(check); }});
      if (!end.failure) break;
      reason = detail::what_of(end.failure);
      if (!recover(end, reason)) break;
    }
    Texts left;
    {
      std::lock_guard lock(mutex_);
      stopped_ = load_.stopped = true;
      reason_ = reason;
      load_.ready = false;
      load_.running = load_.waiting = 0;
      for (auto& [client, texts] : waiting_) left.insert(left.end(), texts.begin(), texts.end());
      waiting_.clear();
    }
    left.insert(left.end(), pass_.begin(), pass_.end());
    for (const auto& text : left)
      text->end({.finish = reason.empty() ? Finish::cancelled : Finish::failed, .error = reason});
    changed_.notify_all();
  }

  // The leader of a run: on its rank 0, while the others wait for it.
  bool next(typename Work::Step& step) {
    step.texts.clear();
    if (pass_.empty() && !wait()) return false;
    for (const auto& text : pass_) step.texts.push_back(text->request.prompt);
    report();
    return true;
  }
  // For the next pass, or not for long; false when the engine stops.
  bool wait() {
    // Ranks that wait for work meet so often, well before their deadline.
    const auto tick = std::min<std::chrono::nanoseconds>(std::chrono::seconds(1), options_.deadline / 4);
    Texts over;
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, tick, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return false;
    const auto now = Clock::now();
    for (std::int64_t tokens = 0; !waiting_.empty();) {
      auto next = waiting_.upper_bound(turn_);  // whose turn it is after the last one
      if (next == waiting_.end()) next = waiting_.begin();
      auto& [client, queue] = *next;
      const auto& text = queue.front();
      const bool gone = text->cancelled || text->request.deadline <= now;
      if (!gone) {
        tokens += static_cast<std::int64_t>(text->request.prompt.size());
        if (!pass_.empty() && tokens > options_.step_tokens) break;
        text->began = now;
      }
      (gone ? over : pass_).push_back(text);
      turn_ = client;
      queue.pop_front();
      if (queue.empty()) waiting_.erase(next);
      --load_.waiting;
    }
    lock.unlock();
    for (const auto& text : over) text->end({.finish = text->cancelled ? Finish::cancelled : Finish::expired});
    return true;
  }
  void took(typename Work::Taken& vectors) {
    const auto end = Clock::now();
    ++steps_;
    const auto texts = std::exchange(pass_, {});
    for (std::size_t i = 0; i < texts.size(); ++i) {
      prompt_tokens_ += texts[i]->request.prompt.size();
      texts[i]->end({.finish = texts[i]->cancelled ? Finish::cancelled : Finish::stop,
                     .devices = devices_.names(),
                     .prompt_time = end - texts[i]->began,
                     .embedding = std::move(vectors[i])});
    }
    report();
  }
  void keep(const SelfCheck& check) {
    std::lock_guard lock(mutex_);
    self_check_ = check;
  }

  // True where the engine can go on: on the devices that are left, or on the same where the texts were at fault.
  bool recover(const RunEnd& end, const std::string& reason) {
    std::string lost = "a pass over " + std::to_string(pass_.size()) + " texts failed and is given up";
    {
      std::lock_guard lock(mutex_);
      const bool loaded = load_.ready || recoveries_ > 0;
      load_.ready = false;
      if (!loaded) failure_ = end.failure;
      if (!loaded || stopping_) return false;
      if (!end.lost.empty()) lost = devices_.lose(end.lost, end.hung);
    }
    options_.log.write(LogLevel::error, lost + ": " + reason);
    ++recoveries_;
    std::erase_if(pass_, [&](const auto& text) {
      const bool over = ++text->failures >= 2 || end.lost.empty();
      if (over) text->end({.finish = Finish::failed, .error = reason, .devices = devices_.names()});
      return over;
    });
    return devices_.size() > 0;
  }

  void report() {
    std::lock_guard lock(mutex_);
    load_.ready = true;
    load_.devices = devices_.size();
    load_.running = static_cast<std::int64_t>(pass_.size());
    load_.memory_bytes = devices_.memory_bytes();
    load_.gpu_bytes = devices_.gpu_bytes();
    load_.prompt_tokens = prompt_tokens_;
    load_.steps = steps_;
    load_.recoveries = recoveries_;
    changed_.notify_all();
  }

  const EngineOptions options_;
  const RunTransports<Transport> transports_;
  const std::shared_ptr<const RunModel> model_;
  EngineDevices<D> devices_;  // changed with the mutex held

  // Of rank 0, and of the engine's thread while no rank runs.
  Texts pass_;  // what the devices have
  std::uint64_t prompt_tokens_ = 0, steps_ = 0, recoveries_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::deque<std::shared_ptr<Text>>> waiting_;  // by client, none of them empty
  std::string turn_;                                                  // the client that was taken from last
  EngineLoad load_;
  SelfCheck self_check_;
  bool stopping_ = false, stopped_ = false;
  std::string reason_;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace troika::serving
