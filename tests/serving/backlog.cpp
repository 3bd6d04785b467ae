// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <chrono>
#include <deque>
#include <memory>
#include <vector>

#include <troika/serving/backlog.hpp>
#include <troika/serving/step_planner.hpp>

using namespace troika::serving;
using namespace std::chrono_literals;
using Catch::Matchers::WithinRel;

TEST_CASE("who asks how long it takes learns it from how fast others begin") {
  Backlog backlog;
  const auto wait = [&](const char* client) { return backlog.expected_wait(client).count(); };
  Clock::time_point now{1h};
  std::deque<Backlog::Place> places;
  CHECK(wait("a") == 0);

  // They begin as they come: nothing is learnt of how fast they could.
  for (int i = 0; i < 5; ++i) {
    backlog.join("a").begin();
    backlog.planned(now += 10s);
  }
  CHECK(wait("a") == 0);

  // 2 begin every 4 seconds, at plannings each second.
  for (int i = 0; i < 40; ++i) places.push_back(backlog.join("a"));
  CHECK(wait("a") == 0);
  backlog.planned(now += 100s);
  for (int i = 0; i < 10; ++i) {
    for (int second = 0; second < 3; ++second) backlog.planned(now += 1s);
    for (int k = 0; k < 2; ++k) places.front().begin(), places.pop_front();
    backlog.planned(now += 1s);
  }
  CHECK_THAT(wait("a"), WithinRel(42.0, 1e-9));  // 20 others, then itself, 2 s each
  places.resize(10);                             // who gives up is not waited for
  CHECK_THAT(wait("a"), WithinRel(22.0, 1e-9));

  // Clients take turns: one of "b" waits for one of "a", the next one for two.
  CHECK_THAT(wait("b"), WithinRel(4.0, 1e-9));
  places.push_back(backlog.join("b"));
  CHECK_THAT(wait("b"), WithinRel(8.0, 1e-9));
  places.clear();
  CHECK(wait("a") == 0);

  // What was idle since then does not count as slow.
  backlog.planned(now += 1000s);
  for (int i = 0; i < 2; ++i) places.push_back(backlog.join("a"));
  CHECK_THAT(wait("a"), WithinRel(6.0, 1e-9));
}

TEST_CASE("a planner tells who waits, and no place is left when all have ended") {
  StepPlanner planner({.pages = 1, .context = 100, .most_running = 1});
  Clock::time_point now{1h};
  std::vector<std::shared_ptr<Sequence>> sequences;
  for (int i = 0; i < 20; ++i) {
    sequences.push_back(
        std::make_shared<Sequence>(GenerationRequest{.prompt = {1}, .max_tokens = 2}, GenerationEvents{}));
    sequences.back()->place = planner.backlog().join("");
    planner.add(sequences.back());
  }
  const std::vector<std::int32_t> token{7};
  for (int step = 0; step < 20; ++step) {  // 2 of them for each
    REQUIRE(planner.plan(now).size() == 1);
    planner.finish(token, now += 1s);
  }
  CHECK_THAT(planner.backlog().expected_wait("").count(), WithinRel(22.0, 0.1));  // the 11th begins with the next step
  sequences[12]->cancel();
  REQUIRE(planner.plan(now).size() == 1);
  CHECK_THAT(planner.backlog().expected_wait("").count(), WithinRel(18.0, 0.1));
  planner.end_all(Finish::cancelled, "", now);
  CHECK(planner.backlog().expected_wait("").count() == 0);
}
