// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include <troika/serving/engine.hpp>

namespace troika::serving {

// What engines do, in the text format of Prometheus (the names are vLLM's, after "troika_"). All members may be called from any
// thread.
class Metrics {
 public:
  Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;
  ~Metrics();

  // The engine, whose requests are counted from now on under the label model_name. Once it is gone its gauges are too; what was
  // counted stays. It may outlive the metrics.
  std::unique_ptr<Engine> watch(const std::string& model, std::unique_ptr<Engine> engine);

  std::string text() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace troika::serving
