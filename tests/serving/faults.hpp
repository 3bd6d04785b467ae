// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <stdexcept>
#include <thread>

#include <troika/serving/engine.hpp>

namespace troika::test {

// What goes wrong with a device, once, in the step that the test wants.
class Fault {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Kind { throws, hangs };

  Fault(Kind kind, int device, std::uint64_t step) : state_(std::make_shared<State>()) {
    state_->kind = kind, state_->device = device, state_->step = step;
  }
  ~Fault() { release(); }

  // For EngineOptions::before_step.
  auto hook() const {
    return [state = state_](int device, std::uint64_t step) {
      if (device != state->device || step < state->step || state->happened.exchange(true)) return;
      state->at = Clock::now();
      state->told.set_value();
      if (state->kind == Kind::throws) throw std::runtime_error("the device caught fire");
      state->gone.wait();
    };
  }
  bool happened() const { return state_->happened; }
  // Waits until it has happened.
  Clock::time_point at() const {
    if (told_.wait_for(std::chrono::seconds(60)) != std::future_status::ready)
      throw std::runtime_error("nothing went wrong in 60 s");
    return state_->at;
  }

  // Lets a device that hangs go on, and waits until all that it kept is gone. The engine is gone before.
  void release() {
    if (released_) return;
    released_ = true;
    state_->go.set_value();
    while (state_.use_count() > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

 private:
  struct State {
    Kind kind = Kind::throws;
    int device = 0;
    std::uint64_t step = 0;
    std::atomic<bool> happened{false};
    Clock::time_point at{};
    std::promise<void> told, go;
    std::shared_future<void> gone = go.get_future().share();
  };
  std::shared_ptr<State> state_;
  std::shared_future<void> told_ = state_->told.get_future().share();
  bool released_ = false;
};

}  // namespace troika::test
