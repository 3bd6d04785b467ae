// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <troika/observe/alerts.hpp>
#include <troika/observe/log.hpp>
#include <troika/serving/alerts.hpp>
#include <troika/serving/api.hpp>
#include <troika/serving/engine.hpp>

namespace troika::serving {

struct MonitorOptions {
  AlertLimits limits{};
  std::function<void(const Alert&)> on_alert{};  // when it fires and when it is resolved, on the thread of the monitor
  std::chrono::milliseconds period{1000};        // of samples; 0: only sample() takes one
  std::function<Clock::time_point()> clock = Clock::now;
  Log log{};  // is told of alerts, too
};

// What is seen of a server: metrics, health, alerts and the dashboard of the engines that it watches. All members may
// be called from any thread.
class Monitor {
 public:
  Monitor() : Monitor(MonitorOptions{}) {}
  explicit Monitor(MonitorOptions options);
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;
  ~Monitor();

  // The engine, watched under the name of its model. It may outlive the monitor.
  std::unique_ptr<Engine> watch(const std::string& model, std::unique_ptr<Engine> engine);

  // For Api::Options: /metrics, /healthz, /readyz, /dashboard and /dashboard/state. They are not asked once the monitor
  // is gone.
  std::map<std::string, Api::Page> pages();
  // Of these, what anybody may ask: it tells nothing of models and requests. For AccessRules::open.
  static std::vector<std::string> open_pages() { return {"/healthz", "/readyz", "/dashboard"}; }

  std::vector<Alert> alerts() const;  // that fire
  void sample();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace troika::serving
