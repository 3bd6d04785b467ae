// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>

#include "answers.hpp"
#include "held_engine.hpp"

#include <troika/scheduling/dynamic_allocation.hpp>
#include <troika/scheduling/random_allocation.hpp>
#include <troika/scheduling/round_robin.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/replicas.hpp>

using Catch::Matchers::Contains;
using troika::serving::Engine;
using troika::serving::EngineOptions;
using troika::serving::Finish;
using troika::serving::GenerationEnd;
using troika::serving::GenerationEvents;
using troika::serving::Replicas;

namespace {

template <class A>
struct Groups {
  explicit Groups(std::size_t count, A allocation = A()) {
    std::vector<std::unique_ptr<Engine>> engines;
    for (std::size_t i = 0; i < count; ++i) {
      auto engine = std::make_unique<Held>();
      held.push_back(engine.get());
      engines.push_back(std::move(engine));
    }
    replicas = std::make_unique<Replicas<A>>(std::move(engines), std::move(allocation), troika::Log::silent());
  }
  // The group that takes a request.
  std::size_t start(std::int64_t tokens = 10, GenerationEvents events = {}) {
    std::vector<std::size_t> before;
    for (const auto* engine : held) before.push_back(engine->tickets.size());
    (void)replicas->start({.prompt = {1}, .max_tokens = tokens}, std::move(events));
    std::size_t group = 0;
    while (held[group]->tickets.size() == before[group]) ++group;
    return group;
  }
  std::vector<Held*> held;
  std::unique_ptr<Replicas<A>> replicas;
};

}  // namespace

TEST_CASE("the allocation says which group takes a request, and groups that are not ready take none") {
  Groups<troika::RoundRobin> groups(3);
  CHECK(std::vector{groups.start(), groups.start(), groups.start(), groups.start()} ==
        std::vector<std::size_t>{0, 1, 2, 0});
  groups.held[1]->ready = false;
  CHECK(groups.start() == 2);
  CHECK(groups.start() == 0);
  CHECK(groups.start() == 2);
  const auto placements = groups.replicas->placements();
  REQUIRE(placements.size() == 7);
  CHECK(placements[6].group == 2);
  CHECK(placements[6].candidates.size() == 2);
  CHECK(groups.replicas->load().tokens == 15);
  for (auto* held : groups.held) held->ready = false;
  CHECK_THROWS_WITH(groups.start(), Contains("none of the 3 groups of devices is ready"));
}

TEST_CASE("dynamic allocation gives a group that was measured twice as fast twice the work") {
  Groups<troika::DynamicAllocation> groups(2);
  // Each group shows its speed once: 10 tokens in 1 s and in 2 s.
  for (int i = 0; i < 2; ++i) (void)groups.start();
  for (std::size_t i = 0; i < 2; ++i) groups.held[i]->tickets.at(0)->end(Finish::length, std::chrono::seconds(1 + i));
  CHECK(groups.replicas->groups()[0].queued == 0);
  std::vector<int> taken(2);
  for (int i = 0; i < 30; ++i) ++taken[groups.start()];
  CHECK(taken[0] == 20);
  CHECK(taken[1] == 10);
  CHECK(groups.replicas->groups()[0].queued == 20);
  CHECK(groups.replicas->groups()[1].queued_work == Approx(10 * 10.2));
}

TEST_CASE("a full group is passed over; what no group takes is refused with the first reason") {
  Groups<troika::StaticAllocation> groups(2);
  groups.held[0]->full = true;
  CHECK(groups.start() == 1);
  CHECK(groups.start() == 1);
  groups.held[1]->full = true;
  CHECK_THROWS_WITH(groups.start(), Contains("full"));
  CHECK(groups.replicas->groups()[0].queued == 0);
  CHECK(groups.replicas->groups()[1].queued == 2);
  for (auto* held : groups.held) held->full = false;
  CHECK_THROWS_WITH(groups.replicas->start({}, {}), Contains("empty"));
  CHECK(groups.replicas->placements().back().attempt == 1);  // it would not do elsewhere either
}

TEST_CASE("what a group gives up goes on in another from the tokens that it has, until none is left") {
  Groups<troika::StaticAllocation> groups(3);
  std::vector<std::int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<GenerationEnd> ends;
  const auto generation = groups.replicas->start(
      {.prompt = {1}, .max_tokens = 4},
      {[&](std::int32_t token) { tokens.push_back(token); }, [&](const GenerationEnd& end) { ends.push_back(end); },
       [&](const troika::TokenLogprobs& told) { logprobs.push_back(told.drawn); }});
  std::vector<std::size_t> order;
  for (int attempt = 0; attempt < 3; ++attempt) {
    for (std::size_t i = 0; i < 3; ++i) {
      auto* const held = groups.held[i];
      if (held->tickets.empty() || std::ranges::find(order, i) != order.end()) continue;
      order.push_back(i);
      const auto ticket = held->tickets[0];
      CHECK(ticket->request.drawn == tokens);
      if (attempt == 2) {
        generation->cancel();
        CHECK(ticket->cancelled);
      }
      ticket->events.on_logprobs({.drawn = -1.0f * static_cast<float>(attempt)});
      ticket->events.on_token(70 + attempt);
      CHECK(ends.empty());
      ticket->end(Finish::failed, std::chrono::seconds(1), "error " + std::to_string(attempt));
      break;
    }
  }
  CHECK(order.size() == 3);
  CHECK(tokens == std::vector<std::int32_t>{70, 71, 72});
  CHECK(logprobs == std::vector<float>{0, -1, -2});
  REQUIRE(ends.size() == 1);
  CHECK(ends[0].finish == Finish::failed);
  CHECK(ends[0].error == "error 2");
  CHECK(ends[0].token_time == std::chrono::seconds(3));
  for (const auto& group : groups.replicas->groups()) {
    CHECK(group.queued == 0);
    CHECK(group.failed == 1);
  }
}

TEST_CASE("replicas of a model answer as one does, also when a group loses its last device on the way") {
  const LoadedModel model(long_model("llama"));
  const auto requests = mixed_requests(40);
  const auto expected = alone(model, requests);
  for (const bool fails : {false, true}) {
    INFO((fails ? "the second group fails" : "all groups work"));
    std::vector<std::unique_ptr<Engine>> engines;
    for (int i = 0; i < 2; ++i) {
      EngineOptions options{.kv_type = troika::KvType::f32, .log = troika::Log::silent()};
      options.before_step = [=](int, std::uint64_t step) {
        if (fails && i == 1 && step > 10) throw std::runtime_error("the group caught fire");
      };
      engines.push_back(troika::serving::make_engine(exact_devices(1), model.folder.path(), options));
    }
    Replicas<troika::RandomAllocation> replicas(std::move(engines), troika::RandomAllocation(3), troika::Log::silent());
    std::vector<Answer> answers;
    for (const auto& request : requests) answers.emplace_back(replicas, request);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const auto end = answers[i].end();
      CHECK(end.error == "");
      CHECK(answers[i].tokens() == expected[i]);
      CHECK(end.tokens == static_cast<std::int64_t>(expected[i].size()));
    }
    CHECK(replicas.load().devices == (fails ? 1 : 2));
    bool again = false;
    for (const auto& placement : replicas.placements()) again |= placement.attempt > 1;
    CHECK(again == fails);
  }
}
