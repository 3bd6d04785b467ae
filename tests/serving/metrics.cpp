// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include <support/catch.hpp>
#include <support/temp_folder.hpp>

#include "held_engine.hpp"

#include <troika/serving/metrics.hpp>

using Catch::Matchers::Contains;
using troika::serving::Engine;
using troika::serving::EngineWatch;
using troika::serving::Finish;
using troika::serving::GenerationRequest;
using troika::serving::Metrics;

namespace {

std::unique_ptr<Engine> held(Held*& engine) {
  auto owner = std::make_unique<Held>();
  engine = owner.get();
  return owner;
}

// The value of a line "name{labels} value"; -1 where there is none.
double value(const std::string& text, const std::string& series) {
  const auto at = text.find("\n" + series + " ");
  return at == std::string::npos ? -1 : std::stod(text.substr(at + series.size() + 2));
}

}  // namespace

TEST_CASE("metrics tell what engines do, what requests got and what was refused") {
  EngineWatch watch;
  const Metrics metrics(watch);
  Held* engine = nullptr;
  auto watched = watch.watch("tiny", held(engine));
  int ended = 0;
  for (int i = 0; i < 3; ++i)
    (void)watched->start({.prompt = {1, 2, 3}, .max_tokens = 5}, {{}, [&](const auto&) { ++ended; }});
  engine->full = true;
  CHECK_THROWS_AS(watched->start({.prompt = {1}}, {}), troika::Error);
  engine->tickets[0]->end(Finish::length, std::chrono::milliseconds(40));
  engine->tickets[1]->end(Finish::length, std::chrono::milliseconds(4000));
  engine->tickets[2]->end(Finish::failed, {}, "no reason");
  CHECK(ended == 3);

  const auto text = metrics.text();
  CHECK(value(text, "troika_engine_ready{model_name=\"tiny\"}") == 1);
  CHECK(value(text, "troika_num_requests_running{model_name=\"tiny\"}") == 3);
  CHECK(value(text, "troika_generation_tokens_total{model_name=\"tiny\"}") == 5);
  CHECK(value(text, "troika_requests_refused_total{model_name=\"tiny\"}") == 1);
  CHECK(value(text, "troika_requests_total{finished_reason=\"length\",model_name=\"tiny\"}") == 2);
  CHECK(value(text, "troika_requests_total{finished_reason=\"failed\",model_name=\"tiny\"}") == 1);
  CHECK(value(text, "troika_e2e_request_latency_seconds_bucket{model_name=\"tiny\",le=\"0.05\"}") == 2);
  CHECK(value(text, "troika_e2e_request_latency_seconds_bucket{model_name=\"tiny\",le=\"+Inf\"}") == 3);
  CHECK(value(text, "troika_time_per_output_token_seconds_bucket{model_name=\"tiny\",le=\"0.01\"}") ==
        2);  // 10 ms, and of the failed one 0
  CHECK(value(text, "troika_request_prompt_tokens_sum{model_name=\"tiny\"}") == 9);
}

TEST_CASE("metrics tell what each device and each collective did") {
  EngineWatch watch;
  const Metrics metrics(watch);
  Held* engine = nullptr;
  const auto watched = watch.watch("tiny", held(engine));
  engine->states = {{.name = "host:0", .memory_bytes = 4096, .tasks = 7, .busy_seconds = 1.5, .waited_seconds = 0.25},
                    {.name = "host:1", .lost = true, .faults = 1}};
  engine->states[0].collectives[static_cast<std::size_t>(troika::Operation::all_reduce)] = {12, 640, 0.5};
  engine->check = troika::serving::SelfCheck::of({"host:0", "host:1"});
  engine->check.kernels = {0.5, 0.25};
  engine->check.links[0].seconds = 0.125;
  engine->check.all_reduce_seconds = 2;
  const auto text = metrics.text();
  const auto checked = [&](const std::string& what, const std::string& device, const std::string& peer) {
    return value(text, "troika_self_check_seconds{model_name=\"tiny\",check=\"" + what + "\",device=\"" + device +
                           "\",peer=\"" + peer + "\"}");
  };
  CHECK(checked("device", "host:1", "") == 0.25);
  CHECK(checked("link", "host:0", "host:1") == 0.125);
  CHECK(checked("all_reduce", "", "") == 2);
  const auto of = [&](const std::string& name, const std::string& device, const std::string& more = "") {
    return value(text, "troika_" + name + "{model_name=\"tiny\",device=\"" + device + "\"" + more + "}");
  };
  CHECK(of("device_up", "host:0") == 1);
  CHECK(of("device_up", "host:1") == 0);
  CHECK(of("device_faults_total", "host:1") == 1);
  CHECK(of("device_memory_bytes", "host:0") == 4096);
  CHECK(of("device_tasks_total", "host:0") == 7);
  CHECK(of("device_busy_seconds_total", "host:0") == 1.5);
  CHECK(of("device_wait_seconds_total", "host:0") == 0.25);
  CHECK(of("collective_calls_total", "host:0", ",operation=\"all_reduce\"") == 12);
  CHECK(of("collective_bytes_total", "host:0", ",operation=\"all_reduce\"") == 640);
  CHECK(of("collective_seconds_total", "host:0", ",operation=\"all_reduce\"") == 0.5);
  CHECK(of("collective_calls_total", "host:1", ",operation=\"all_reduce\"") == -1);
}

TEST_CASE("an engine that goes away takes its gauges along and leaves what was counted; another goes on counting") {
  EngineWatch watch;
  const Metrics metrics(watch);
  Held* engine = nullptr;
  auto watched = watch.watch("tiny", held(engine));
  (void)metrics.text();
  watched.reset();
  auto text = metrics.text();
  CHECK(value(text, "troika_engine_ready{model_name=\"tiny\"}") == -1);
  CHECK(value(text, "troika_generation_tokens_total{model_name=\"tiny\"}") == 5);
  watched = watch.watch("tiny", held(engine));
  text = metrics.text();
  CHECK(value(text, "troika_engine_ready{model_name=\"tiny\"}") == 1);
  CHECK(value(text, "troika_generation_tokens_total{model_name=\"tiny\"}") == 10);
  auto later_watch = std::make_unique<EngineWatch>();
  auto later = std::make_unique<Metrics>(*later_watch);
  auto outlives = later_watch->watch("other", held(engine));
  later.reset();
  later_watch.reset();
  outlives.reset();
}

TEST_CASE("Prometheus's own checker finds nothing wrong with the metrics") {
  if (std::system("command -v promtool > /dev/null") != 0) {
    WARN("SKIPPED: promtool is not installed");
    return;
  }
  EngineWatch watch;
  const Metrics metrics(watch);
  Held* engine = nullptr;
  const auto watched = watch.watch("a \"name\" with\nodd characters", held(engine));
  engine->states = {{.name = "host:0"}, {.name = "host:1"}};
  engine->states[1].collectives[0].calls = 3;
  engine->check = troika::serving::SelfCheck::of({"host:0", "host:1"});
  (void)watched->start({.prompt = {1}, .max_tokens = 1}, {});
  engine->tickets[0]->end(Finish::stop);
  const troika::test::TempFolder folder;
  std::ofstream(folder.path() / "metrics") << metrics.text();
  const auto command = "promtool check metrics < '" + (folder.path() / "metrics").string() + "' > '" +
                       (folder.path() / "said").string() + "' 2>&1";
  const auto code = std::system(command.c_str());
  std::ifstream said(folder.path() / "said");
  INFO(std::string(std::istreambuf_iterator<char>(said), {}));
  CHECK(code == 0);
}
