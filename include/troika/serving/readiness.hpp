// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include <troika/observe/log.hpp>
#include <troika/serving/engine_watch.hpp>

namespace troika::serving {

// What a trial of all engines found.
struct Verdict {
  bool ready = false;
  int models = 0;        // that are loaded
  std::string reason{};  // why not, without names: anybody may ask
  Clock::time_point at{};
};

// Whether tokens can be made, found out by making one with each engine that is watched; one that draws tokens for
// others meanwhile has shown it, too. One trial serves all who ask until it is some seconds old, so that asking puts no
// load on the engines. All members may be called from any thread.
class Readiness {
 public:
  struct Options {
    std::chrono::nanoseconds fresh = std::chrono::seconds(5);     // for how long a verdict holds
    std::chrono::nanoseconds patience = std::chrono::seconds(5);  // with a token
    std::function<Clock::time_point()> clock = Clock::now;
    Log log{};
  };

  explicit Readiness(const EngineWatch& watch) : Readiness(watch, Options{}) {}
  Readiness(const EngineWatch& watch, Options options);  // the watch outlives it
  Readiness(const Readiness&) = delete;
  Readiness& operator=(const Readiness&) = delete;
  ~Readiness();  // who still waits gets no answer

  // `answer` is called once, now or on another thread: hand over and return.
  void ask(std::function<void(const Verdict&)> answer);
  // Looks after a trial that is under way. Call it about once a second.
  void tick();

 private:
  struct State;
  void begin_trial();

  const EngineWatch& watch_;
  std::shared_ptr<State> state_;
};

}  // namespace troika::serving
