// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include <troika/serving/engine_watch.hpp>

namespace troika::serving {

// What engines, their requests and their devices do, in the text format of Prometheus (the names are vLLM's, after
// "troika_"). The engines are those that are watched from its making on; once one is gone its gauges are too, and what
// was counted of requests stays. All members may be called from any thread.
class Metrics {
 public:
  explicit Metrics(EngineWatch& watch);  // which outlives it
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;
  ~Metrics();

  std::string text() const;

 private:
  struct State;
  const EngineWatch& watch_;
  std::shared_ptr<State> state_;
};

}  // namespace troika::serving
