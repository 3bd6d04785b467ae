// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/reference_model.hpp>

#include "answers.hpp"
#include "faults.hpp"

#include <troika/serving/engine.hpp>

using namespace std::chrono_literals;
using Catch::Matchers::Contains;
using troika::serving::EngineOptions;
using troika::serving::Finish;
using troika::serving::GenerationEnd;
using troika::serving::GenerationEvents;
using troika::serving::GenerationRequest;
using troika::serving::make_engine;

TEST_CASE("64 requests at once get the tokens that each gets alone, on every number of devices") {
  for (const std::string type : {"llama", "qwen3"}) {
    const LoadedModel model(long_model(type));
    const auto requests = mixed_requests(64);
    const auto expected = alone(model, requests);
    for (const int count : {1, 2, 3}) {
      for (const std::int64_t kv_tokens : {512, 4096}) {  // the first has room for few at once
        INFO(type << " on " << count << " devices, memory for " << kv_tokens << " tokens");
        const auto engine = make_engine(exact_devices(count), model.folder.path(),
                                        {.kv_tokens = kv_tokens, .kv_type = troika::KvType::f32});
        std::vector<Answer> answers;
        for (const auto& request : requests) answers.emplace_back(*engine, request);
        for (std::size_t i = 0; i < answers.size(); ++i) {
          const auto end = answers[i].end();
          CHECK(answers[i].tokens() == expected[i]);
          CHECK(
              end.finish ==
              (static_cast<std::int64_t>(expected[i].size()) < requests[i].max_tokens ? Finish::stop : Finish::length));
          CHECK(end.error.empty());
        }
        const auto load = engine->load();
        CHECK(load.devices == count);
        CHECK(load.reused_tokens > 0);
        CHECK(load.steps > 0);
        if (kv_tokens == 4096) CHECK(load.steps < 600);  // they shared steps; one by one it would be about 1300
      }
    }
  }
}

TEST_CASE("log-probabilities are those of a model in double, in a mix of requests, on every number of devices") {
  const auto tiny = long_model("llama");
  const LoadedModel model(tiny);
  const ReferenceModel reference(tiny);
  auto requests = mixed_requests(24);
  for (std::size_t i = 0; i < requests.size(); ++i)
    if (i % 4 < 3) requests[i].logprobs = std::vector{0, 3, 20}[i % 4];
  for (std::size_t i = 0; i < requests.size(); i += 5) {  // long ones, of which two do not fit
    requests[i].prompt.resize(100, 7);
    requests[i].max_tokens = 200;
    requests[i].ends.clear();
  }
  std::vector<ReferenceModel::Rows> expected;  // of each request: for each token drawn, of all tokens
  for (const int count : {1, 2, 3}) {
    // Memory for few at once: some are sent back, and read again
    const auto engine =
        make_engine(exact_devices(count), model.folder.path(), {.kv_tokens = 512, .kv_type = troika::KvType::f32});
    std::vector<Answer> answers;
    for (const auto& request : requests) answers.emplace_back(*engine, request);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      INFO("request " << i << " on " << count << " devices");
      (void)answers[i].end();
      const auto& [request, tokens, told] = std::tie(requests[i], answers[i].tokens(), answers[i].logprobs());
      if (expected.size() == i) {
        auto text = request.prompt;
        text.insert(text.end(), tokens.begin(), tokens.end());
        const auto logits = reference.logits(text);
        auto& rows = expected.emplace_back();
        for (std::size_t at = request.prompt.size() - 1; at + 1 < text.size(); ++at) {
          double sum = 0;
          for (const double logit : logits[at]) sum += std::exp(logit);
          rows.emplace_back();
          for (const double logit : logits[at]) rows.back().push_back(logit - std::log(sum));
        }
      }
      REQUIRE(told.size() == (request.logprobs ? tokens.size() : 0));
      REQUIRE(tokens.size() == expected[i].size());
      double most_off = 0;
      bool likeliest = true;
      for (std::size_t at = 0; at < told.size(); ++at) {
        auto row = expected[i][at];
        const auto off = [&](float logprob, std::int32_t id) {
          most_off = std::max(most_off, std::abs(logprob - row[static_cast<std::size_t>(id)]));
        };
        off(told[at].drawn, tokens[at]);
        REQUIRE(told[at].likeliest.size() == static_cast<std::size_t>(*request.logprobs));
        for (const auto& [logprob, id] : told[at].likeliest) off(logprob, id);
        std::ranges::sort(row, std::greater());
        for (std::size_t k = 0; k < told[at].likeliest.size(); ++k)
          likeliest = likeliest && std::abs(told[at].likeliest[k].logit - row[k]) < 1e-4;
      }
      CHECK(most_off < 1e-4);
      CHECK(likeliest);
    }
    CHECK(engine->load().preemptions > 0);
  }
}

TEST_CASE("each device tells what it did in its part of each step, and waiting for work is not counted") {
  const LoadedModel model(long_model("llama"));
  const auto engine = make_engine(exact_devices(3), model.folder.path());
  for (int i = 0; i < 2; ++i)
    CHECK(Answer(*engine, {.prompt = {1, 2, 3}, .max_tokens = 20}).end().finish == Finish::length);
  std::vector<troika::serving::DeviceState> devices;
  do {
    devices = engine->device_states();  // an answer ends before its step does
  } while (!std::ranges::all_of(devices, [&](const auto& device) { return device.tasks == engine->load().steps; }));
  REQUIRE(devices.size() == 3);
  for (const auto& device : devices) {
    CHECK(device.name == "host:" + std::to_string(&device - devices.data()));
    CHECK_FALSE(device.lost);
    CHECK(device.faults == 0);
    CHECK(device.tasks >= 40);
    CHECK(device.busy_seconds > 0);
    const auto of = [&](troika::Operation operation) {
      return device.collectives[static_cast<std::size_t>(operation)];
    };
    CHECK(of(troika::Operation::barrier).calls == device.tasks);  // one in each step, and none between them
    const auto reduces = of(troika::Operation::all_reduce);
    CHECK(reduces.calls >= 2 * device.tasks);
    CHECK(reduces.calls == devices[0].collectives[static_cast<std::size_t>(troika::Operation::all_reduce)].calls);
    CHECK(reduces.bytes > reduces.calls);
    CHECK(reduces.seconds > 0);
    CHECK(device.memory_bytes > 0);
  }
  const auto memory = [&] {
    std::int64_t bytes = 0;
    for (const auto& device : engine->device_states()) bytes += device.memory_bytes;
    return bytes;
  };
  while (memory() != engine->load().memory_bytes) std::this_thread::yield();  // the load is as of the latest step
}

TEST_CASE("while no request runs, each device and each link is checked again and again, and after a loss") {
  const LoadedModel model(long_model("llama"));
  std::atomic<bool> fails{false};
  EngineOptions options{.log = troika::Log::silent(), .self_check = 1s};
  options.before_step = [&](int device, std::uint64_t) {
    if (device == 1 && fails.exchange(false)) throw std::runtime_error("the device caught fire");
  };
  const auto engine = make_engine(exact_devices(3), model.folder.path(), options);
  const auto next = [&](std::chrono::system_clock::time_point after) {
    troika::serving::SelfCheck check;
    while (check.at <= after) check = (std::this_thread::yield(), engine->self_check());
    return check;
  };
  const auto first = next({});
  CHECK(first.names == std::vector<std::string>{"host:0", "host:1", "host:2"});
  for (const auto seconds : first.kernels) CHECK(seconds > 0);
  REQUIRE(first.links.size() == 3);
  for (const auto& link : first.links) CHECK(link.seconds > 0);
  CHECK(first.all_reduce_seconds > 0);
  CHECK(troika::serving::table_of(first).find("host:2") != std::string::npos);
  const auto second = next(first.at);
  fails = true;
  CHECK(Answer(*engine, {.prompt = {1, 2}, .max_tokens = 5}).end().finish == Finish::length);
  auto third = next(second.at);
  while (third.names.size() > 2) third = next(third.at);  // one may have come before the loss
  CHECK(third.names == std::vector<std::string>{"host:0", "host:2"});
  CHECK(third.links.size() == 1);
}

TEST_CASE("a request that is cancelled ends within a step, and the engine goes on") {
  const LoadedModel model(long_model("llama"));
  const auto engine = make_engine(exact_devices(2), model.folder.path());
  Answer first(*engine, {.prompt = {1, 2, 3}}), second(*engine, {.prompt = {4, 5}, .max_tokens = 300});
  while (first.count() < 5) std::this_thread::yield();
  first.cancel();
  const auto count = first.count();
  const auto end = first.end();
  CHECK(end.finish == Finish::cancelled);
  CHECK(first.tokens().size() <= count + 2);
  CHECK(end.tokens == static_cast<std::int64_t>(first.tokens().size()));
  CHECK(second.end().finish == Finish::length);
}

TEST_CASE("when a device fails, answers go on from where they were on those that are left") {
  const LoadedModel model(long_model("llama"));
  const auto requests = mixed_requests(12);
  const auto expected = alone(model, requests);
  for (const int fails : {0, 1, 2}) {
    INFO("device " << fails << " of 3");
    std::string told;
    std::atomic<bool> failed{false};
    EngineOptions options{.kv_type = troika::KvType::f32,
                          .log = troika::Log([&](troika::LogLevel, std::string_view text) { told += text; })};
    options.before_step = [&](int device, std::uint64_t step) {
      if (device == fails && step > 12 && !failed.exchange(true)) throw std::runtime_error("the device caught fire");
    };
    const auto engine = make_engine(exact_devices(3), model.folder.path(), options);
    std::vector<Answer> answers;
    for (const auto& request : requests) answers.emplace_back(*engine, request);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const auto end = answers[i].end();
      CHECK(end.error == "");
      CHECK(std::ranges::count(end.devices, '+') ==
            (end.devices.find("host:" + std::to_string(fails)) == std::string::npos ? 1 : 2));
      CHECK(answers[i].tokens() == expected[i]);
    }
    CHECK(failed);
    CHECK(engine->load().devices == 2);
    CHECK(engine->load().recoveries == 1);
    for (const auto& device : engine->device_states()) {
      const bool lost = device.name == "host:" + std::to_string(fails);
      CHECK(device.lost == lost);
      CHECK(device.faults == (lost ? 1 : 0));
      CHECK((device.memory_bytes == 0) == lost);
    }
    CHECK_THAT(told, Contains("host:" + std::to_string(fails) +
                              " failed and is left out; 2 devices are left: the device caught fire"));
  }
}

TEST_CASE("when no device is left, requests end as failed and new ones are refused") {
  const LoadedModel model(long_model("llama"));
  EngineOptions options{.log = troika::Log::silent()};
  options.before_step = [](int device, std::uint64_t step) {
    if (step > 3 - static_cast<std::uint64_t>(device)) throw std::runtime_error("power is out");
  };
  const auto engine = make_engine(exact_devices(2), model.folder.path(), options);
  Answer answer(*engine, {.prompt = {1, 2, 3}, .max_tokens = 100});
  const auto end = answer.end();
  CHECK(end.finish == Finish::failed);
  CHECK(end.error == "power is out");
  std::string refusal;
  while (refusal.empty()) {  // it may take some that come while it fails
    try {
      (void)engine->start({.prompt = {1}}, {});
      std::this_thread::sleep_for(1ms);
    } catch (const troika::Error& error) {
      refusal = error.what();
    }
  }
  CHECK_THAT(refusal, Contains("the engine has stopped: power is out"));
  CHECK(!engine->load().ready);
}

TEST_CASE("weights that hold NaN fail the requests, not the devices") {
  auto tiny = long_model("llama");
  tiny.tensors.at("model.layers.1.mlp.up_proj.weight").data[5] = NAN;
  const LoadedModel model(tiny);
  const auto engine = make_engine(exact_devices(3), model.folder.path(), {.log = troika::Log::silent()});
  for (int i = 0; i < 2; ++i) {
    const auto end = Answer(*engine, {.prompt = {1, 2, 3}}).end();
    CHECK(end.finish == Finish::failed);
    CHECK_THAT(end.error, Contains("NaN"));
  }
  CHECK(engine->load().devices == 3);
}

TEST_CASE("an engine goes away although one of its devices hangs") {
  const LoadedModel model(long_model("llama"));
  for (const int count : {1, 2, 3}) {
    INFO(count << " devices");
    troika::test::Fault fault(troika::test::Fault::Kind::hangs, 0, 5);
    {
      const auto engine = make_engine(
          exact_devices(count), model.folder.path(),
          {.deadline = count == 1 ? 300ms : 3000ms, .log = troika::Log::silent(), .before_step = fault.hook()});
      Answer answer(*engine, {.prompt = {1, 2, 3}});
      fault.at();
    }
    fault.release();
  }
}

TEST_CASE("an engine that goes away ends what runs as cancelled") {
  const LoadedModel model(long_model("llama"));
  std::vector<Answer> answers;
  {
    const auto engine = make_engine(exact_devices(2), model.folder.path());
    for (int i = 0; i < 5; ++i) answers.emplace_back(*engine, GenerationRequest{.prompt = {1, 2, 3}});
  }
  for (auto& answer : answers) CHECK(answer.end().finish != Finish::failed);
}

TEST_CASE("what cannot run is refused at once, with what would be valid") {
  const LoadedModel model(long_model("llama"));
  const auto engine = make_engine(exact_devices(1), model.folder.path(), {.context = 50, .most_waiting = 1});
  const auto refused = [&](GenerationRequest request) {
    try {
      (void)engine->start(std::move(request), {});
    } catch (const troika::Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK_THAT(refused({}), Contains("a prompt of 0 tokens; valid here is 1 to 49"));
  CHECK_THAT(refused({.prompt = Tokens(50, 1)}), Contains("valid here is 1 to 49"));
  CHECK_THAT(refused({.prompt = {101}}), Contains("token 101 is none of the model's, which are 0 to 100"));
  CHECK_THAT(refused({.prompt = {1}, .max_tokens = -1}),
             Contains("max_tokens is 0 (all that fit) or above the 0 that are drawn, not -1"));
  CHECK_THAT(refused({.prompt = {1}, .sampling = {.temperature = -1}}), Contains("temperature"));
  CHECK_THROWS_WITH(make_engine(exact_devices(1), model.folder.path(), {.context = 1}),
                    Contains("this model takes 2 to 400"));
  CHECK(make_engine(exact_devices(1), model.folder.path(), {.context = 401})->context() == 400);
  CHECK_THROWS_WITH(make_engine(std::vector<troika::HostDevice>{}, model.folder.path()), Contains("at least 1 device"));
  CHECK_THROWS_WITH(make_engine(troika::host_devices(2, {.memory_limit = 20000}), model.folder.path()),
                    Contains("out of memory"));

  // With the only running request held up in its event, and one waiting, the queue is full.
  std::promise<void> go;
  auto gone = go.get_future().share();
  const auto narrow =
      make_engine(exact_devices(1), model.folder.path(), {.mixed_tokens = 1, .most_running = 1, .most_waiting = 1});
  std::atomic<bool> held{false};
  const auto blocker = narrow->start({.prompt = {1}, .max_tokens = 2}, {[&](std::int32_t) {
                                                                          held = true;
                                                                          gone.wait();
                                                                        },
                                                                        {}});
  while (!held) std::this_thread::yield();
  Answer waits(*narrow, {.prompt = {2}, .max_tokens = 1});
  CHECK_THROWS_WITH((Answer{*narrow, {.prompt = {3}}}), Contains("1 requests wait already; try again later"));
  go.set_value();
  CHECK(waits.end().finish == Finish::length);
}

TEST_CASE("a request that would begin too late is refused at once") {
  const LoadedModel model(long_model("llama"));
  const auto engine = make_engine(exact_devices(1), model.folder.path(), {.mixed_tokens = 1, .most_running = 1});
  std::vector<Answer> answers;
  for (int i = 0; i < 20; ++i) answers.emplace_back(*engine, GenerationRequest{.prompt = {1}, .max_tokens = 2});
  for (auto& answer : answers) CHECK(answer.end().finish == Finish::length);

  std::promise<void> go;
  auto gone = go.get_future().share();
  std::atomic<bool> held{false};
  const auto blocker = engine->start({.prompt = {1}, .max_tokens = 2}, {[&](std::int32_t) {
                                                                          held = true;
                                                                          gone.wait();
                                                                        },
                                                                        {}});
  while (!held) std::this_thread::yield();
  Answer waits(*engine, {.prompt = {2}, .max_tokens = 1});
  CHECK_THROWS_WITH((Answer{*engine, {.prompt = {3}, .max_wait = std::chrono::nanoseconds(0)}}),
                    Contains("to begin, which is too late; try again later"));
  Answer patient(*engine, {.prompt = {3}, .max_tokens = 1, .max_wait = std::chrono::hours(1)});
  go.set_value();
  CHECK(waits.end().finish == Finish::length);
  CHECK(patient.end().finish == Finish::length);
}
