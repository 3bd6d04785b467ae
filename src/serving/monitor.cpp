// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/monitor.hpp>

#include <algorithm>
#include <condition_variable>
#include <iterator>
#include <mutex>
#include <thread>
#include <utility>

#include <nlohmann/json.hpp>

#include <troika/observe/gpus.hpp>
#include <troika/serving/engine_sampler.hpp>
#include <troika/serving/engine_watch.hpp>
#include <troika/serving/metrics.hpp>
#include <troika/serving/readiness.hpp>
#include <troika/serving/request_log.hpp>

#include "dashboard.hpp"

namespace troika::serving {
namespace {

HttpAnswer ready_answer(const Verdict& verdict) {
  nlohmann::json body{{"status", verdict.ready ? "ready" : "not ready"}, {"models", verdict.models}};
  if (!verdict.ready) body["reason"] = verdict.reason;
  if (verdict.ready && verdict.models == 0) body["note"] = "no model is loaded; one is at its first request";
  HttpFields headers{{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}};
  if (!verdict.ready) headers.emplace_back("Retry-After", "5");
  return {verdict.ready ? 200 : 503, std::move(headers), body.dump()};
}

std::function<void(const Alert&)> teller(const MonitorOptions& options) {
  return [log = options.log, call = options.on_alert](const Alert& alert) {
    const auto about = alert.rule + ", " + alert.subject;
    if (alert.firing)
      log.write(LogLevel::warning, "alert: " + about + ": " + alert.text);
    else
      log.write(LogLevel::warning, "alert is over: " + about);
    if (call) call(alert);
  };
}

}  // namespace

struct Monitor::State {
  explicit State(MonitorOptions o)
      : options(std::move(o)),
        start(options.clock()),
        metrics(watch),
        readiness(watch, {.clock = options.clock, .log = options.log}),
        alerts(teller(options)) {
    watch.listen({.ended = [log = requests, clock = options.clock](const std::string& model, const GenerationEnd& end) {
      log->add({clock(), model, end});
    }});
    if (options.period.count() > 0) thread = std::thread([this] { work(); });
  }
  ~State() {
    {
      std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    if (thread.joinable()) thread.join();
  }

  void sample() {
    const auto now = options.clock();
    std::lock_guard lock(sampling);
    auto fresh = sampler.sample(watch, now);
    auto round = serving_measurements(fresh, *requests, options.limits, now);
    std::ranges::move(gpu_measurements(gpus.read(), options.limits), std::back_inserter(round));
    alerts.measure(round, now);
    std::lock_guard latest_lock(mutex);
    latest = std::move(fresh);
  }
  void work() {
    std::unique_lock lock(mutex);
    while (!stopping) {
      lock.unlock();
      sample();
      readiness.tick();
      lock.lock();
      changed.wait_for(lock, options.period, [this] { return stopping; });
    }
  }
  HttpAnswer dashboard() {
    std::vector<SampledEngine> engines;
    {
      std::lock_guard lock(mutex);
      engines = latest;
    }
    return dashboard_state(engines, *requests, alerts.firing(), start, options.clock());
  }

  const MonitorOptions options;
  const Clock::time_point start;
  EngineWatch watch;
  const Gpus gpus;
  const Metrics metrics;
  Readiness readiness;
  const std::shared_ptr<RequestLog> requests = std::make_shared<RequestLog>();
  Alerts alerts;
  std::mutex sampling;  // one sample at a time
  EngineSampler sampler;
  std::mutex mutex;  // of what follows
  std::condition_variable changed;
  std::vector<SampledEngine> latest;
  bool stopping = false;
  std::thread thread;  // last: it uses all of the above
};

Monitor::Monitor(MonitorOptions options) : state_(std::make_unique<State>(std::move(options))) {}
Monitor::~Monitor() = default;

std::unique_ptr<Engine> Monitor::watch(const std::string& model, std::unique_ptr<Engine> engine) {
  return state_->watch.watch(model, std::move(engine));
}

std::map<std::string, Api::Page> Monitor::pages() {
  auto& state = *state_;
  const auto page = [](auto make) {
    return [make](const HttpRequest&, const std::function<void(HttpAnswer)>& answer) { answer(make()); };
  };
  return {
      {"/metrics", page([&state] {
         return HttpAnswer{200, {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}}, state.metrics.text()};
       })},
      {"/healthz", page([] {
         return HttpAnswer{200, {{"Content-Type", "text/plain; charset=utf-8"}}, "ok\n"};
       })},
      {"/readyz",
       [&state](const HttpRequest&, std::function<void(HttpAnswer)> answer) {
         state.readiness.ask([answer = std::move(answer)](const Verdict& verdict) { answer(ready_answer(verdict)); });
       }},
      {"/dashboard", page(dashboard_page)},
      {"/dashboard/state", page([&state] { return state.dashboard(); })},
  };
}

std::vector<Alert> Monitor::alerts() const { return state_->alerts.firing(); }
void Monitor::sample() { state_->sample(); }

}  // namespace troika::serving
