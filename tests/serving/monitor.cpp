// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <support/catch.hpp>

#include "held_engine.hpp"

#include <troika/serving/monitor.hpp>

using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Json = nlohmann::json;
using troika::serving::Clock;
using troika::serving::Engine;
using troika::serving::Finish;
using troika::serving::HttpAnswer;
using troika::serving::Monitor;

namespace {

struct Server {
  Clock::time_point now{1h};
  std::vector<troika::Alert> told;
  Monitor monitor{{.on_alert = [this](const troika::Alert& alert) { told.push_back(alert); },
                   .period = 0ms,
                   .clock = [this] { return now; },
                   .log = troika::Log::silent()}};
  Held* engine = nullptr;
  std::unique_ptr<Engine> watched;

  void load() {
    auto owner = std::make_unique<Held>();
    engine = owner.get();
    watched = monitor.watch("tiny", std::move(owner));
  }
  // Nothing where there is no answer yet.
  std::shared_ptr<std::optional<HttpAnswer>> ask(const std::string& path) {
    auto told_later = std::make_shared<std::optional<HttpAnswer>>();
    monitor.pages().at(path)({.method = "GET", .target = path},
                             [told_later](HttpAnswer answer) { *told_later = std::move(answer); });
    return told_later;
  }
  Json state() { return Json::parse(ask("/dashboard/state")->value().body); }
};

}  // namespace

TEST_CASE("a server says that it lives, and that it is ready once a token was made") {
  Server server;
  CHECK(server.ask("/healthz")->value().status == 200);
  auto answer = server.ask("/readyz")->value();
  CHECK(answer.status == 200);
  CHECK(Json::parse(answer.body)["models"] == 0);
  server.load();
  server.now += 10s;
  const auto later = server.ask("/readyz");
  CHECK_FALSE(*later);
  server.engine->tickets.at(0)->end(Finish::failed, {}, "power is out");
  answer = later->value();
  CHECK(answer.status == 503);
  CHECK(Json::parse(answer.body)["reason"] == "the devices of a model failed");
  CHECK(Json::parse(answer.body)["status"] == "not ready");
  CHECK(server.state()["requests"].empty());  // asking is not a request
  CHECK_THAT(server.ask("/metrics")->value().body, ContainsSubstring("troika_engine_ready{model_name=\"tiny\"} 1"));
}

TEST_CASE("the state of the dashboard follows what engines do") {
  Server server;
  server.load();
  server.engine->states = {{.name = "host:0", .memory_bytes = 100, .tasks = 3, .busy_seconds = 1}, {.name = "host:1"}};
  server.monitor.sample();
  CHECK(server.state()["models"][0]["tokens_per_second"] == 0);
  server.now += 2s;
  server.engine->tokens += 50;
  server.engine->steps += 10;
  server.engine->states[0].busy_seconds += 1;
  server.engine->states[0].waited_seconds += 0.5;
  server.monitor.sample();
  for (int i = 0; i < 30; ++i) {
    (void)server.watched->start({.prompt = {1, 2}, .max_tokens = 11}, {});
    server.engine->tickets.back()->end(Finish::length, 100ms * (i + 1));
  }
  server.now += 3s;
  const auto state = server.state();
  const auto& model = state["models"][0];
  CHECK(model["name"] == "tiny");
  CHECK(model["tokens_per_second"] == 25);
  CHECK(model["devices"][0]["busy"] == 0.5);
  CHECK(model["devices"][0]["waiting"] == 0.25);
  CHECK(model["devices"][0]["memory_bytes"] == 100);
  CHECK(model["devices"][1]["busy"] == 0);
  CHECK(state["latency"]["requests"] == 30);
  CHECK(state["latency"]["per_token"]["p50"] == 0.15);
  CHECK(state["requests"].size() == 20);
  CHECK(state["requests"][0]["tokens"] == 11);
  CHECK(state["requests"][0]["ago_seconds"] == 3);
  CHECK(state["requests"][0]["seconds"] == 3);
  CHECK(state["uptime_seconds"] == 5);
}

TEST_CASE("an alert reaches the callback and the dashboard when it fires, and the callback when it is over") {
  Server server;
  server.load();
  (void)server.watched->start({.prompt = {1}, .max_tokens = 9}, {});
  for (int i = 0; i < 10; ++i, server.now += 1s) server.monitor.sample();
  CHECK(server.told.empty());
  server.monitor.sample();
  REQUIRE(server.told.size() == 1);
  CHECK(server.told[0].rule == "devices silent");
  CHECK(server.told[0].firing);
  CHECK(server.monitor.alerts().size() == 1);
  CHECK(server.state()["alerts"][0]["subject"] == "tiny");
  server.engine->steps += 1;
  server.now += 1s;
  server.monitor.sample();
  REQUIRE(server.told.size() == 2);
  CHECK_FALSE(server.told[1].firing);
  CHECK(server.monitor.alerts().empty());
}

TEST_CASE("the monitor samples by itself, and stops when it goes away") {
  std::atomic<int> told{0};
  auto monitor = std::make_unique<Monitor>(troika::serving::MonitorOptions{
      .on_alert = [&](const troika::Alert&) { ++told; }, .period = 1ms, .log = troika::Log::silent()});
  auto owner = std::make_unique<Held>();
  owner->states = {{.name = "host:0", .lost = true}};
  const auto watched = monitor->watch("tiny", std::move(owner));
  while (told == 0) std::this_thread::yield();
  monitor.reset();
}

TEST_CASE("the page of the dashboard asks nobody else and is not framed") {
  Server server;
  const auto page = server.ask("/dashboard")->value();
  CHECK(page.status == 200);
  std::string policy;
  for (const auto& [name, text] : page.headers) policy += name == "Content-Security-Policy" ? text : "";
  CHECK_THAT(policy, ContainsSubstring("default-src 'none'") && ContainsSubstring("connect-src 'self'") &&
                         ContainsSubstring("frame-ancestors 'none'"));
  CHECK_THAT(page.body,
             ContainsSubstring("<!doctype html>") && ContainsSubstring("</html>") && ContainsSubstring("\\u00b5s"));
}
