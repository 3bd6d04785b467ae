// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/serving/engine.hpp>

// An engine whose requests go on when the test says so.
struct Held final : troika::serving::Engine {
  struct Ticket final : troika::serving::Generation {
    troika::serving::GenerationRequest request;
    troika::serving::GenerationEvents events;
    std::atomic<bool> cancelled{false};
    mutable bool ended = false;
    void cancel() noexcept override { cancelled = true; }
    void end(troika::serving::Finish finish, std::chrono::nanoseconds time = {}, const std::string& error = {}) const {
      ended = true;
      events.on_end({.finish = finish,
                     .error = error,
                     .prompt_tokens = static_cast<std::int64_t>(request.prompt.size()),
                     .tokens = request.max_tokens,
                     .token_time = time});
    }
  };
  ~Held() override {
    for (const auto& ticket : tickets) {
      if (!ticket->ended && ticket->events.on_end) ticket->end(troika::serving::Finish::cancelled);
    }
  }

  std::shared_ptr<troika::serving::Generation> start(troika::serving::GenerationRequest request,
                                                     troika::serving::GenerationEvents events) override {
    if (stopped) throw troika::Error(troika::Fault::peer_failed, "the engine has stopped");
    if (full) throw troika::Error(troika::Fault::out_of_memory, "full");
    if (request.prompt.empty()) throw troika::Error(troika::Fault::invalid_argument, "empty");
    tickets.push_back(std::make_shared<Ticket>());
    tickets.back()->request = std::move(request);
    tickets.back()->events = std::move(events);
    return tickets.back();
  }
  std::int64_t context() const override { return length; }
  troika::serving::EngineLoad load() const override {
    return {.ready = ready,
            .devices = 1,
            .running = static_cast<std::int64_t>(tickets.size()),
            .tokens = tokens,
            .steps = steps};
  }
  std::vector<troika::serving::DeviceState> device_states() const override { return states; }
  troika::serving::SelfCheck self_check() const override { return check; }

  troika::serving::EnginePlace place() const override { return {.groups = {{.devices = devices, .ready = ready}}}; }

  std::vector<std::shared_ptr<Ticket>> tickets;
  std::vector<std::string> devices;
  std::vector<troika::serving::DeviceState> states;
  troika::serving::SelfCheck check;
  std::int64_t length = 100;
  std::uint64_t tokens = 5, steps = 0;
  bool ready = true, full = false, stopped = false;
};
