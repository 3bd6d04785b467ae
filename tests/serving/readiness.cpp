// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>

#include "held_engine.hpp"

#include <troika/serving/readiness.hpp>

using namespace std::chrono_literals;
using troika::serving::Clock;
using troika::serving::Engine;
using troika::serving::EngineWatch;
using troika::serving::Finish;
using troika::serving::Readiness;
using troika::serving::Verdict;

namespace {

// A server with engines that go on when the test says so, and a clock that does, too.
struct Server {
  EngineWatch watch;
  std::vector<std::unique_ptr<Engine>> engines;
  Clock::time_point now{1h};
  Readiness readiness{watch, {.clock = [this] { return now; }, .log = troika::Log::silent()}};

  Held& add(const std::string& model) {
    auto engine = std::make_unique<Held>();
    auto& held = *engine;
    engines.push_back(watch.watch(model, std::move(engine)));
    return held;
  }
  std::shared_ptr<std::optional<Verdict>> ask() {
    auto told = std::make_shared<std::optional<Verdict>>();
    readiness.ask([told](const Verdict& verdict) { *told = verdict; });
    return told;
  }
};

}  // namespace

TEST_CASE("a server without models is ready; one with models is when each has made a token") {
  Server server;
  REQUIRE(*server.ask());
  server.now += 6s;
  auto &a = server.add("a"), &b = server.add("b");
  const auto told = server.ask();
  REQUIRE(a.tickets.size() == 1);
  CHECK(a.tickets[0]->request.prompt.size() == 1);
  CHECK(a.tickets[0]->request.max_tokens == 1);
  CHECK_FALSE(*told);
  a.tickets[0]->end(Finish::length);
  CHECK_FALSE(*told);
  b.tickets[0]->end(Finish::length);
  REQUIRE(*told);
  CHECK((*told)->ready);
  CHECK((*told)->models == 2);
}

TEST_CASE("many who ask at once, or soon after, cost one token") {
  Server server;
  auto& engine = server.add("a");
  std::vector<std::shared_ptr<std::optional<Verdict>>> all;
  for (int i = 0; i < 100; ++i) all.push_back(server.ask());
  REQUIRE(engine.tickets.size() == 1);
  engine.tickets[0]->end(Finish::stop);
  for (const auto& one : all) CHECK((*one && (**one).ready));
  server.now += 4s;
  CHECK(*server.ask());
  CHECK(engine.tickets.size() == 1);
  server.now += 2s;
  CHECK_FALSE(*server.ask());
  CHECK(engine.tickets.size() == 2);
}

TEST_CASE("a model whose devices failed, or that makes no token in time, is not ready") {
  Server server;
  auto &failing = server.add("a"), &good = server.add("b");
  auto told = server.ask();
  failing.tickets[0]->end(Finish::failed, {}, "power is out");
  CHECK_FALSE(*told);
  good.tickets[0]->end(Finish::length);
  REQUIRE(*told);
  CHECK_FALSE((*told)->ready);
  CHECK((*told)->reason == "the devices of a model failed");

  Server late;
  auto& slow = late.add("a");
  told = late.ask();
  late.now += 4s;
  late.readiness.tick();
  CHECK_FALSE(*told);
  late.now += 1s;
  late.readiness.tick();
  REQUIRE(*told);
  CHECK_FALSE((*told)->ready);
  CHECK((*told)->reason == "a model made no token in time");
  CHECK(slow.tickets[0]->cancelled);
}

TEST_CASE("an engine that stopped is not ready, and one that is full or busy is, as it draws tokens for others") {
  Server server;
  auto& engine = server.add("a");
  engine.stopped = true;
  auto told = server.ask();
  REQUIRE(*told);
  CHECK_FALSE((*told)->ready);
  CHECK((*told)->reason == "the devices of a model failed");

  engine.stopped = false;
  engine.full = true;
  server.now += 6s;
  told = server.ask();
  server.readiness.tick();
  CHECK_FALSE(*told);
  engine.tokens += 1;
  server.readiness.tick();
  REQUIRE(*told);
  CHECK((*told)->ready);
}

TEST_CASE("an engine that is unloaded meanwhile keeps nobody waiting") {
  Server server;
  server.add("a");
  const auto told = server.ask();
  server.engines.clear();
  REQUIRE(*told);
  CHECK((*told)->ready);
}
