// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <string>
#include <vector>

#include <support/catch.hpp>

#include <troika/serving/alerts.hpp>

using namespace std::chrono_literals;
using troika::serving::AlertLimits;
using troika::serving::Clock;
using troika::serving::EngineLoad;
using troika::serving::Finish;
using troika::serving::RequestLog;
using troika::serving::SampledEngine;

namespace {

// A server that is watched for a minute, with a round each second.
struct Watched {
  std::vector<SampledEngine> engines{
      {.model = "tiny", .load = {.ready = true, .running = 1, .pages_used = 99, .pages = 100}}};
  RequestLog requests;
  Clock::time_point now{1h};

  // What fires at the end, as "rule: subject".
  std::vector<std::string> after_a_minute() {
    troika::Alerts alerts;
    for (int i = 0; i < 60; ++i, now += 1s)
      alerts.measure(troika::serving::serving_measurements(engines, requests, AlertLimits{}, now), now);
    std::vector<std::string> list;
    for (const auto& alert : alerts.firing()) list.push_back(alert.rule + ": " + alert.subject);
    return list;
  }
  void ended(int count, Finish finish, std::chrono::nanoseconds first_token) {
    for (int i = 0; i < count; ++i)
      requests.add(
          {now, "tiny", {.finish = finish, .tokens = finish == Finish::failed ? 0 : 3, .prompt_time = first_token}});
  }
};
using List = std::vector<std::string>;

}  // namespace

TEST_CASE("a server in good health raises no alert, full or not") {
  Watched server;
  server.ended(99, Finish::stop, 100ms);
  server.ended(1, Finish::failed, 0s);
  CHECK(server.after_a_minute().empty());
}

TEST_CASE("each trouble of a server raises its alert") {
  Watched server;
  SECTION("requests run and no step is taken") {
    server.engines[0].silent = 11s;
    CHECK(server.after_a_minute() == List{"devices silent: tiny"});
  }
  SECTION("an engine takes no steps") {
    server.engines[0].load.ready = false;
    CHECK(server.after_a_minute() == List{"not ready: tiny"});
  }
  SECTION("a device is lost") {
    server.engines[0].devices = {{.state = {.name = "host:0"}}, {.state = {.name = "host:1", .lost = true}}};
    CHECK(server.after_a_minute() == List{"device lost: tiny on host:1"});
  }
  SECTION("requests wait for memory") {
    server.engines[0].load.waiting = 1;
    CHECK(server.after_a_minute() == List{"memory: tiny"});
  }
  SECTION("first tokens come late") {
    server.ended(90, Finish::stop, 100ms);
    server.ended(10, Finish::stop, 6s);
    CHECK(server.after_a_minute() == List{"latency: tiny"});
  }
  SECTION("requests fail") {
    server.ended(90, Finish::stop, 100ms);
    server.ended(10, Finish::failed, 0s);
    CHECK(server.after_a_minute() == List{"errors: tiny"});
  }
}

TEST_CASE("a GPU that is lost raises an alert at once, one that is slowed after a while") {
  const std::vector<troika::GpuReading> gpus{{.index = 0, .celsius = 60, .slowed = false},
                                             {.index = 1, .lost = true},
                                             {.index = 2},
                                             {.index = 3, .celsius = 95, .slowed = true}};
  troika::Alerts alerts;
  const auto firing = [&](Clock::time_point at) {
    alerts.measure(troika::serving::gpu_measurements(gpus, AlertLimits{}), at);
    List list;
    for (const auto& alert : alerts.firing()) list.push_back(alert.rule + ": " + alert.subject);
    return list;
  };
  CHECK(firing(Clock::time_point(1h)) == List{"GPU lost: GPU 1"});
  CHECK(firing(Clock::time_point(1h + 16s)) == List{"GPU lost: GPU 1", "GPU slowed: GPU 3"});
  CHECK(alerts.firing()[1].text.find("95 degrees") != std::string::npos);
}

TEST_CASE("a few requests prove nothing, and old ones are forgotten") {
  Watched server;
  server.ended(2, Finish::failed, 0s);
  CHECK(server.after_a_minute().empty());
  server.ended(50, Finish::failed, 0s);
  server.now += 5min;
  CHECK(server.after_a_minute().empty());
}

TEST_CASE("a percentile is one of the values") {
  CHECK(troika::serving::percentile({}, 0.5) == 0);
  CHECK(troika::serving::percentile({3, 1, 2}, 0.5) == 2);
  CHECK(troika::serving::percentile({3, 1, 2}, 0.95) == 3);
  CHECK(troika::serving::percentile({4, 3, 2, 1}, 0.25) == 1);
}
