// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/spmd.hpp>

#include "answers.hpp"
#include "faults.hpp"

#include <troika/models/encoder.hpp>
#include <troika/serving/engine.hpp>

using Catch::Matchers::Contains;
using troika::serving::EngineOptions;
using troika::serving::Finish;
using troika::serving::make_engine;

namespace {

using Vector = std::vector<float>;

std::vector<Tokens> some_texts(std::size_t count) {
  std::vector<Tokens> texts(count);
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t t = 0; t <= 7 * i % 40; ++t)
      texts[i].push_back(static_cast<std::int32_t>((3 * i + 11 * t * t) % 101));
  return texts;
}

// As the library gives them, one by one on one device.
std::vector<Vector> embedded(const LoadedModel& model, const std::vector<Tokens>& texts) {
  return spmd(1, [&](auto& pipeline) {
    const troika::models::Encoder encoder(pipeline, model.config, model.weights);
    std::vector<Vector> vectors;
    for (const auto& text : texts) vectors.push_back(encoder.embed(pipeline, text));
    return vectors;
  })[0];
}

bool near(const Vector& a, const Vector& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(std::abs(a[i] - b[i]) < 1e-5f)) return false;
  return true;
}

// Steps wait until it is opened.
class Gate {
 public:
  EngineOptions options(EngineOptions more = {}) {
    more.before_step = [opened = opened_](int, std::uint64_t) { opened.wait(); };
    return more;
  }
  void open() { open_.set_value(); }

 private:
  std::promise<void> open_;
  std::shared_future<void> opened_{open_.get_future().share()};
};

}  // namespace

TEST_CASE("texts that wait go through the devices together and have the embeddings that each has alone") {
  const LoadedModel model(TinyModel::make("bert", 5));
  const auto texts = some_texts(40);
  const auto expected = embedded(model, texts);
  for (const int count : {1, 2, 3}) {
    INFO(count << " devices");
    Gate gate;
    const auto engine = make_engine(exact_devices(count), model.folder.path(), gate.options());
    CHECK(engine->context() == 64);
    std::vector<Answer> answers;
    for (const auto& text : texts) answers.emplace_back(*engine, troika::serving::GenerationRequest{.prompt = text});
    gate.open();
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto end = answers[i].end();
      CHECK(end.finish == Finish::stop);
      CHECK(end.prompt_tokens == static_cast<std::int64_t>(texts[i].size()));
      CHECK(near(end.embedding, expected[i]));
      tokens += end.prompt_tokens;
    }
    while (engine->load().running > 0) std::this_thread::yield();
    const auto load = engine->load();
    CHECK(load.ready);
    CHECK(load.devices == count);
    CHECK(load.waiting == 0);
    CHECK(load.prompt_tokens == static_cast<std::uint64_t>(tokens));
    CHECK(load.memory_bytes > 0);
    CHECK(load.steps <= 4);  // about 800 tokens, 512 at once, after the first
  }
}

TEST_CASE("a client with one text does not wait for all of one with many") {
  const LoadedModel model(TinyModel::make("bert"));
  Gate gate;
  const auto engine =
      make_engine(exact_devices(2), model.folder.path(), gate.options({.step_tokens = 8}));  // a text at once
  std::atomic<int> ended{0};
  std::vector<std::shared_ptr<troika::serving::Generation>> texts;
  std::promise<int> before_the_one;
  const auto start = [&](const std::string& client, auto on_end) {
    texts.push_back(
        engine->start({.prompt = Tokens(8, 3), .client = client},
                      {[](std::int32_t) {}, [on_end](const troika::serving::GenerationEnd&) { on_end(); }}));
  };
  for (int i = 0; i < 20; ++i) start("many", [&] { ++ended; });
  start("one", [&] { before_the_one.set_value(ended); });
  gate.open();
  auto before = before_the_one.get_future();
  REQUIRE(before.wait_for(std::chrono::seconds(60)) == std::future_status::ready);
  CHECK(before.get() <= 2);
}

TEST_CASE("when a device of an encoder fails, its texts are embedded by those that are left") {
  const LoadedModel model(TinyModel::make("bert"));
  const auto texts = some_texts(4);
  const auto expected = embedded(model, texts);
  // One after another: the next, once the engine has left out the one before.
  const auto fail_first = [&](int devices) {
    const auto left_out = std::make_shared<std::atomic<int>>(0);
    EngineOptions options;
    options.log = troika::Log([left_out](troika::LogLevel, std::string_view text) {
      if (text.find("is left out") != std::string_view::npos) ++*left_out;
    });
    options.before_step = [devices, left_out](int device, std::uint64_t) {
      if (device < devices && device == *left_out) throw std::runtime_error("unplugged");
    };
    return options;
  };
  {
    const auto engine = make_engine(exact_devices(3), model.folder.path(), fail_first(1));
    for (std::size_t i = 0; i < texts.size(); ++i) {
      Answer answer(*engine, {.prompt = texts[i]});
      const auto end = answer.end();
      CHECK(end.finish == Finish::stop);
      CHECK(near(end.embedding, expected[i]));
    }
    CHECK(engine->load().devices == 2);
    CHECK(engine->load().recoveries == 1);
  }
  const auto engine = make_engine(exact_devices(3), model.folder.path(), fail_first(2));
  Answer twice(*engine, {.prompt = texts[0]});
  const auto end = twice.end();
  CHECK(end.finish == Finish::failed);
  CHECK_THAT(end.error, Contains("unplugged"));
  Answer next(*engine, {.prompt = texts[1]});
  CHECK(near(next.end().embedding, expected[1]));
  CHECK(engine->load().devices == 1);
}

TEST_CASE("a device of an encoder that hangs is left to itself, and its texts are embedded by the others") {
  const LoadedModel model(TinyModel::make("bert"));
  const auto texts = some_texts(4);
  const auto expected = embedded(model, texts);
  troika::test::Fault fault(troika::test::Fault::Kind::hangs, 1, 0);
  {
    const auto engine =
        make_engine(exact_devices(3), model.folder.path(),
                    {.deadline = std::chrono::seconds(4), .log = troika::Log::silent(), .before_step = fault.hook()});
    std::vector<Answer> answers;
    for (const auto& text : texts) answers.emplace_back(*engine, troika::serving::GenerationRequest{.prompt = text});
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto end = answers[i].end();
      CHECK(end.finish == Finish::stop);
      CHECK(near(end.embedding, expected[i]));
    }
    CHECK(engine->load().devices < 3);
    const auto states = engine->device_states();
    REQUIRE(states.size() == 3);
    CHECK(states[1].lost);
  }
  fault.release();
}

TEST_CASE("an encoder without devices says so to all who wait and all who come") {
  const LoadedModel model(TinyModel::make("bert"));
  EngineOptions options{.log = troika::Log::silent()};
  options.before_step = [](int, std::uint64_t) { throw std::runtime_error("unplugged"); };
  const auto engine = make_engine(exact_devices(1), model.folder.path(), options);
  Answer answer(*engine, {.prompt = {1, 2}});
  CHECK_THAT(answer.end().error, Contains("unplugged"));
  while (engine->load().ready) std::this_thread::yield();
  CHECK_THROWS_WITH(engine->start({.prompt = {1}}, {}), Contains("unplugged"));
}

TEST_CASE("texts that are cancelled, or wait when an encoder stops, end as cancelled") {
  const LoadedModel model(TinyModel::make("bert"));
  Gate gate;
  auto engine = make_engine(exact_devices(2), model.folder.path(), gate.options({.step_tokens = 4, .most_waiting = 3}));
  const auto start = [&](auto deadline) { return Answer(*engine, {.prompt = Tokens(4, 7), .deadline = deadline}); };
  const auto never = troika::serving::Clock::time_point::max();
  auto first = start(never);
  while (engine->load().running == 0) std::this_thread::yield();
  auto late = start(troika::serving::Clock::now());
  auto left = start(never), second = start(never);
  CHECK_THROWS_WITH(start(never), Contains("3 texts wait already"));
  left.cancel();
  gate.open();
  CHECK(first.end().finish == Finish::stop);
  CHECK(second.end().finish == Finish::stop);
  CHECK(left.end().finish == Finish::cancelled);
  CHECK(late.end().finish == Finish::expired);
  CHECK_THROWS_WITH(engine->start({.prompt = Tokens(65, 1)}, {}), Contains("1 to 64"));
  CHECK_THROWS_WITH(engine->start({.prompt = {101}}, {}), Contains("0 to 100"));

  Gate other;
  engine = make_engine(exact_devices(2), model.folder.path(), other.options({.step_tokens = 4}));
  auto running = start(never);
  while (engine->load().running == 0) std::this_thread::yield();
  auto waiting = start(never);
  auto stop = std::async(std::launch::async, [&] { engine.reset(); });
  other.open();
  stop.get();
  CHECK(running.end().finish == Finish::stop);
  CHECK(waiting.end().finish != Finish::failed);  // it may have run before the end
}
