// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/serving/engine.hpp>

namespace troika::test {

// What a fake engine says, and what it was asked: shared by all engines that a test makes.
struct Script {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::int32_t> tokens;  // of every answer, until max_tokens
  std::vector<serving::GenerationRequest> asked;
  int allowed = 1 << 30;  // tokens that all answers together may still draw
  bool full = false;      // start() refuses
  std::function<std::vector<float>(const serving::GenerationRequest&)> embed{};  // as an encoder: no tokens, but this
  serving::GenerationEnd end{};                                                  // what is not counted below
  int made = 0, cancelled = 0;                                                   // engines, requests

  void set(const std::string& bytes) {
    tokens.assign(bytes.begin(), bytes.end());
    for (auto& token : tokens) token &= 255;
  }
  void allow(int count) {
    {
      std::lock_guard lock(mutex);
      allowed = count;
    }
    changed.notify_all();
  }
};

// An Engine that says what its script has, each answer on a thread of its own.
class FakeEngine final : public serving::Engine {
 public:
  FakeEngine(std::shared_ptr<Script> script, std::int64_t context) : script_(std::move(script)), context_(context) {
    std::lock_guard lock(script_->mutex);
    ++script_->made;
  }
  ~FakeEngine() override {
    for (const auto& run : runs_) run->cancel();
    for (auto& thread : threads_) thread.join();
  }

  std::shared_ptr<serving::Generation> start(serving::GenerationRequest request,
                                             serving::GenerationEvents events) override {
    const auto prompt = static_cast<std::int64_t>(request.prompt.size());
    expects(prompt > 0 && prompt < context_, "the prompt does not fit");
    auto run = std::make_shared<Run>(script_);
    std::lock_guard lock(script_->mutex);
    if (script_->full) throw Error(Fault::out_of_memory, "too many wait");
    script_->asked.push_back(request);
    runs_.push_back(run);
    threads_.emplace_back(
        [this, run, request = std::move(request), events = std::move(events)] { answer(*run, request, events); });
    return run;
  }
  std::int64_t context() const override { return context_; }
  serving::EngineLoad load() const override { return {.ready = true, .devices = 2, .memory_bytes = 1234}; }

 private:
  struct Run final : serving::Generation {
    explicit Run(std::shared_ptr<Script> s) : script(std::move(s)) {}
    void cancel() noexcept override {
      std::lock_guard lock(script->mutex);
      if (!std::exchange(cancelled, true)) ++script->cancelled;
      script->changed.notify_all();
    }
    std::shared_ptr<Script> script;
    bool cancelled = false;
  };

  void answer(const Run& run, const serving::GenerationRequest& request, const serving::GenerationEvents& events) {
    std::unique_lock lock(script_->mutex);
    auto end = script_->end;
    const auto tokens = script_->embed ? std::vector<std::int32_t>() : script_->tokens;
    if (script_->embed) {
      script_->changed.wait(lock, [&] { return run.cancelled || script_->allowed > 0; });
      if (run.cancelled) end.finish = serving::Finish::cancelled;
      end.embedding = script_->embed(request);
      --script_->allowed;
    }
    end.prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
    for (const auto token : tokens) {
      script_->changed.wait(lock, [&] { return run.cancelled || script_->allowed > 0; });
      if (run.cancelled)
        end.finish = serving::Finish::cancelled;
      else if (end.tokens == request.max_tokens)
        end.finish = serving::Finish::length;
      else {
        --script_->allowed, ++end.tokens;
        lock.unlock();
        if (request.logprobs) {  // a little less likely each time; "a" and those behind it are likeliest
          TokenLogprobs logprobs{.drawn = -0.5f * static_cast<float>(end.tokens)};
          for (int i = 0; i < *request.logprobs; ++i) logprobs.likeliest.push_back({-static_cast<float>(i), 'a' + i});
          events.on_logprobs(logprobs);
        }
        events.on_token(token);
        lock.lock();
        continue;
      }
      break;
    }
    lock.unlock();
    events.on_end(end);
  }

  std::shared_ptr<Script> script_;
  std::int64_t context_;
  std::vector<std::shared_ptr<Run>> runs_;
  std::vector<std::thread> threads_;
};

}  // namespace troika::test
