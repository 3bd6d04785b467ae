// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>

#include <troika/serving/step_planner.hpp>

using namespace std::chrono_literals;
using Tokens = std::vector<std::int32_t>;
using troika::serving::Clock;
using troika::serving::Finish;
using troika::serving::GenerationEnd;
using troika::serving::GenerationRequest;
using troika::serving::Piece;
using troika::serving::PlannerOptions;
using troika::serving::Sequence;
using troika::serving::StepPlanner;

namespace {

// The next token of a text, as a model that looks at all of it would say.
std::int32_t next_token(std::span<const std::int32_t> text) {
  std::uint32_t h = 17;
  for (const auto token : text) h = h * 31 + static_cast<std::uint32_t>(token);
  return static_cast<std::int32_t>(h % 50);
}

// What a request got.
struct Got {
  Tokens tokens;
  std::vector<GenerationEnd> ends;
};

struct Client {
  std::shared_ptr<Got> got = std::make_shared<Got>();
  std::shared_ptr<Sequence> sequence;

  explicit Client(GenerationRequest request)
      : sequence(std::make_shared<Sequence>(
            std::move(request),
            troika::serving::GenerationEvents{[got = got](std::int32_t token) { got->tokens.push_back(token); },
                                              [got = got](const GenerationEnd& end) { got->ends.push_back(end); }})) {}
};

// Takes steps as ranks would: keys go to pages, and the next token follows from what the pages hold, not from the text.
struct Machine {
  explicit Machine(const PlannerOptions& o)
      : options(o), planner(o), memory(static_cast<std::size_t>(o.pages * troika::kv_page), -1) {}

  std::int32_t& at(const Sequence& s, std::int64_t i) {
    return memory[static_cast<std::size_t>(s.pages.at(static_cast<std::size_t>(i / troika::kv_page)) * troika::kv_page +
                                           i % troika::kv_page)];
  }

  bool step(Clock::time_point now = Clock::now()) {
    const auto pieces = planner.plan(now);
    std::int64_t tokens = 0;
    std::set<const Sequence*> seen;
    Tokens drawn;
    for (const auto& [sequence, count, draws] : pieces) {
      const auto& s = *sequence;
      REQUIRE(seen.insert(&s).second);
      REQUIRE(count >= 1);
      REQUIRE(draws == (s.cached + count == static_cast<std::int64_t>(s.tokens.size())));
      tokens += count;
      for (auto i = s.cached; i < s.cached + count; ++i) at(s, i) = s.tokens[static_cast<std::size_t>(i)];
    }
    REQUIRE(tokens <= options.step_tokens);
    most_tokens = std::max(most_tokens, tokens);
    most_pieces = std::max(most_pieces, pieces.size());
    for (const auto& [sequence, count, draws] : pieces) {
      Tokens read;
      for (std::int64_t i = 0; i < sequence->cached + count; ++i) read.push_back(at(*sequence, i));
      REQUIRE(std::equal(read.begin(), read.end(), sequence->tokens.begin()));
      if (draws) drawn.push_back(next_token(read));
    }
    const bool some = !pieces.empty();
    planner.finish(drawn, now);
    ++steps;
    return some;
  }
  void run() {
    while (planner.running() + planner.waiting() > 0) {
      REQUIRE(steps < 100000);
      REQUIRE(step());
    }
  }

  PlannerOptions options;
  StepPlanner planner;
  Tokens memory;
  std::int64_t most_tokens = 0;
  std::size_t most_pieces = 0;
  int steps = 0;
};

Tokens alone(const GenerationRequest& request, std::int64_t context) {
  Tokens text = request.prompt, answer;
  while (static_cast<std::int64_t>(text.size()) < context) {
    const auto token = next_token(text);
    if (std::ranges::find(request.ends, token) != request.ends.end()) break;
    text.push_back(token);
    answer.push_back(token);
    if (static_cast<std::int64_t>(answer.size()) == request.max_tokens) break;
  }
  return answer;
}

GenerationRequest random_request(std::mt19937& random, std::int64_t context) {
  GenerationRequest request;
  const auto length = 1 + random() % static_cast<std::uint32_t>(context - 1);
  const auto kind = static_cast<std::int32_t>(random() % 3);
  for (std::size_t i = 0; i < length; ++i)
    request.prompt.push_back(i < length - length % 100 ? kind : static_cast<std::int32_t>(random() % 50));
  request.max_tokens = random() % 3 == 0 ? 0 : 1 + random() % 200;
  if (random() % 2 == 0) request.ends = {3, 17};
  request.client = std::string(1, static_cast<char>('a' + random() % 3));
  return request;
}

}  // namespace

TEST_CASE("every request gets the answer that it gets alone, however the steps are shared and pages run out") {
  std::uint64_t preemptions = 0, reused = 0;
  for (std::uint32_t seed = 0; seed < 25; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random(seed);
    const auto below = [&](std::uint32_t limit) { return static_cast<std::int64_t>(random() % limit); };
    const auto context = 300 + below(700);
    PlannerOptions options{
        .pages = (context + 127) / 128 + below(20), .context = context, .most_running = 1 + below(20)};
    options.mixed_tokens = options.most_running + below(100);
    options.step_tokens = options.mixed_tokens + below(200);
    Machine machine(options);
    std::vector<Client> clients;
    for (int i = 0; i < 30; ++i) {
      clients.emplace_back(random_request(random, context));
      machine.planner.add(clients.back().sequence);
      for (auto steps = random() % 4; steps > 0; --steps) machine.step();
      if (random() % 40 == 0)
        machine.planner.restart("lost", false, "what is left", Clock::now());  // between steps: nobody is to blame
    }
    machine.run();
    for (const auto& client : clients) {
      const auto& request = client.sequence->request;
      REQUIRE(client.got->ends.size() == 1);
      const auto& end = client.got->ends[0];
      REQUIRE(client.got->tokens == alone(request, context));
      REQUIRE(end.tokens == static_cast<std::int64_t>(client.got->tokens.size()));
      REQUIRE(end.prompt_tokens == static_cast<std::int64_t>(request.prompt.size()));
      const bool full =
          end.prompt_tokens + end.tokens == context || (request.max_tokens > 0 && end.tokens == request.max_tokens);
      REQUIRE(end.finish == (full ? Finish::length : Finish::stop));
    }
    REQUIRE(machine.planner.pool().available() == options.pages);
    preemptions += machine.planner.preemptions();
    reused += machine.planner.reused_tokens();
  }
  CHECK(preemptions > 20);
  CHECK(reused > 1000);
}

TEST_CASE("answers get their token in every step while a long prompt is read beside them") {
  Machine machine({.pages = 64, .context = 4096, .step_tokens = 512, .mixed_tokens = 64, .most_running = 16});
  std::vector<Client> answers;
  for (int i = 0; i < 4; ++i) {
    answers.emplace_back(GenerationRequest{.prompt = {i + 1}, .max_tokens = 40});
    machine.planner.add(answers.back().sequence);
  }
  machine.step();
  Client prompt(GenerationRequest{.prompt = Tokens(600, 9), .max_tokens = 1});
  machine.planner.add(prompt.sequence);
  for (int step = 2; step <= 10; ++step) {
    machine.step();
    for (const auto& client : answers) CHECK(client.got->tokens.size() == static_cast<std::size_t>(step));
    CHECK(prompt.sequence->cached == 60 * (step - 1));  // what 4 answers leave of 64
  }
  machine.step();
  CHECK(prompt.got->ends.size() == 1);
}

TEST_CASE("a prompt that begins as an earlier one reads only what is new") {
  Machine machine({.pages = 64, .context = 4096});
  Tokens shared(300, 5), second = shared;
  second.resize(700, 6);
  Client first(GenerationRequest{.prompt = shared, .max_tokens = 5});
  machine.planner.add(first.sequence);
  machine.run();
  CHECK(first.got->ends[0].reused_tokens == 0);
  Client next(GenerationRequest{.prompt = second, .max_tokens = 5});
  machine.planner.add(next.sequence);
  machine.run();
  CHECK(next.got->ends[0].reused_tokens == 256);
  CHECK(machine.planner.prompt_tokens() == 300 + 700 - 256);
  CHECK(machine.planner.reused_tokens() == 256);
  CHECK(next.got->tokens == alone(next.sequence->request, 4096));
}

TEST_CASE("clients take turns, whoever sent more") {
  Machine machine({.pages = 64, .context = 4096, .step_tokens = 100, .mixed_tokens = 1, .most_running = 1});
  std::vector<std::string> order;
  std::vector<std::shared_ptr<Sequence>> sequences;
  for (const std::string client : {"many", "many", "many", "many", "few", "other"}) {
    sequences.push_back(std::make_shared<Sequence>(
        GenerationRequest{.prompt = {1}, .max_tokens = 1, .client = client},
        troika::serving::GenerationEvents{{}, [&order, client](const GenerationEnd&) { order.push_back(client); }}));
    machine.planner.add(sequences.back());
  }
  machine.run();
  CHECK(order == std::vector<std::string>{"many", "few", "other", "many", "many", "many"});
}

TEST_CASE("requests end when they are cancelled, and expire only while they wait") {
  Machine machine({.pages = 64, .context = 4096, .step_tokens = 100, .mixed_tokens = 2, .most_running = 1});
  const auto now = Clock::now();
  Client runs(GenerationRequest{.prompt = {1}, .max_tokens = 100, .deadline = now + 1s});
  Client expires(GenerationRequest{.prompt = {2}, .max_tokens = 100, .deadline = now + 1s});
  Client waits(GenerationRequest{.prompt = {3}, .max_tokens = 100});
  for (auto* client : {&runs, &expires, &waits}) machine.planner.add(client->sequence);
  machine.step(now);
  machine.step(now + 2s);
  CHECK(runs.got->tokens.size() == 2);
  REQUIRE(expires.got->ends.size() == 1);
  CHECK(expires.got->ends[0].finish == Finish::expired);
  CHECK(expires.got->ends[0].waited >= 1s);
  runs.sequence->cancel();
  waits.sequence->cancel();
  CHECK(!machine.step(now + 3s));
  CHECK(runs.got->ends.at(0).finish == Finish::cancelled);
  CHECK(runs.got->ends.at(0).tokens == 2);
  CHECK(waits.got->ends.at(0).finish == Finish::cancelled);
  CHECK(machine.planner.pool().used() == 0);
}

TEST_CASE("a request that was part of two failed steps ends; one that is to blame ends at once; others go on") {
  Machine machine({.pages = 64, .context = 4096});
  Client twice(GenerationRequest{.prompt = Tokens(20, 1), .max_tokens = 30});
  machine.planner.add(twice.sequence);
  machine.step();
  (void)machine.planner.plan(Clock::now());
  machine.planner.restart("a device was lost", false, "what is left", Clock::now());
  CHECK(twice.got->ends.empty());
  Client once(GenerationRequest{.prompt = Tokens(20, 2), .max_tokens = 30});
  machine.planner.add(once.sequence);
  (void)machine.planner.plan(Clock::now());
  machine.planner.restart("a device was lost", false, "what is left", Clock::now());
  REQUIRE(twice.got->ends.size() == 1);
  CHECK(twice.got->ends[0].finish == Finish::failed);
  CHECK(twice.got->ends[0].error == "a device was lost");
  machine.run();
  CHECK(once.got->ends.at(0).finish == Finish::length);
  CHECK(once.got->ends.at(0).devices == "what is left");
  CHECK(once.got->tokens == alone(once.sequence->request, 4096));

  Client blamed(GenerationRequest{.prompt = Tokens(20, 3), .max_tokens = 30});
  machine.planner.add(blamed.sequence);
  (void)machine.planner.plan(Clock::now());
  machine.planner.restart("not a number", true, "what is left", Clock::now());
  CHECK(blamed.got->ends.at(0).error == "not a number");
}

TEST_CASE("what an event throws ends its request, and no other") {
  Machine machine({.pages = 64, .context = 4096});
  Finish finish{};
  std::string error;
  auto throws = std::make_shared<Sequence>(
      GenerationRequest{.prompt = {1}, .max_tokens = 9},
      troika::serving::GenerationEvents{[](std::int32_t) { throw std::runtime_error("gone"); },
                                        [&](const GenerationEnd& end) { finish = end.finish, error = end.error; }});
  Client other(GenerationRequest{.prompt = {2}, .max_tokens = 9});
  machine.planner.add(throws);
  machine.planner.add(other.sequence);
  machine.run();
  CHECK(finish == Finish::failed);
  CHECK(error == "gone");
  CHECK(other.got->tokens.size() == 9);
}

TEST_CASE("a planner that could not go on is refused") {
  CHECK_THROWS_WITH(StepPlanner({.pages = 2, .context = 257}),
                    Catch::Matchers::ContainsSubstring("2 pages of 128 tokens do not hold a context of 257"));
  CHECK_THROWS_WITH(StepPlanner({.pages = 2, .context = 100, .mixed_tokens = 10, .most_running = 11}),
                    Catch::Matchers::ContainsSubstring("most_running <= mixed_tokens"));
  CHECK_THROWS_WITH(troika::serving::PagePool(0), Catch::Matchers::ContainsSubstring("at least 1 page"));
}
