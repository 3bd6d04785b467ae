// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <troika/serving/engine.hpp>

namespace troika::serving {

// Stands between engines and those who ask them: who listens hears what becomes of requests, and each() shows the
// engines that there are. All members may be called from any thread.
class EngineWatch {
 public:
  struct Listener {
    std::function<void(const std::string& model, const GenerationEnd&)> ended{};  // on a thread of the engine
    std::function<void(const std::string& model)> refused{};                      // on that of who asked
    std::function<void(const std::string& model, const Engine&)> leaves{};        // each() shows it no more
  };

  EngineWatch();
  EngineWatch(const EngineWatch&) = delete;
  EngineWatch& operator=(const EngineWatch&) = delete;
  ~EngineWatch();

  // Hears of engines that are watched from now on, as long as they live.
  void listen(Listener listener);
  // The engine, watched under the name of its model. It may outlive the watch.
  std::unique_ptr<Engine> watch(const std::string& model, std::unique_ptr<Engine> engine);
  // Calls f for each engine in the order in which they came; none goes away meanwhile, so do not wait in it. Nobody
  // hears of requests that f starts.
  void each(const std::function<void(const std::string& model, Engine& engine)>& f) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace troika::serving
