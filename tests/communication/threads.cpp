// SPDX-License-Identifier: Apache-2.0
#include <troika/communication/threads.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "communication/support.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

namespace {
// Allocations of threads that count, in the whole program.
thread_local bool counting = false;
std::atomic<std::int64_t> allocations{0};
}  // namespace

// Not inlined: the compiler would warn of free() for what it takes for its own operator new.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (counting) ++allocations;
  if (void* memory = std::malloc(size ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  if (counting) ++allocations;
  return std::malloc(size ? size : 1);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

using namespace troika;
using namespace troika::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Clock = std::chrono::steady_clock;

namespace {

// Counts up when its scope ends, however it ends.
struct Last {
  std::atomic<int>& count;
  ~Last() { ++count; }
};

// Rank `who` does something else than the all_reduce that the others call.
template <class F>
auto one_differs(int ranks, int who, std::chrono::milliseconds deadline, F&& instead, std::size_t count = 16) {
  return try_ranks(ranks, [&](auto& rank) {
    Communication c{rank, Threads{}, {.deadline = deadline}};
    std::vector<float> data(count, 1);
    c.all_reduce(std::span(data));
    if (rank.rank() == who)
      instead(c);
    else
      c.all_reduce(std::span(data));
  });
}

}  // namespace

TEST_CASE("Ranks that call different collectives all learn who called what", "[threads]") {
  const auto check = [](auto&& instead, const std::string& text) {
    for (const int who : {0, 2}) {
      const auto outcomes = one_differs(4, who, 60s, instead);
      for (int r = 0; r < 4; ++r) {
        const auto error = outcomes[static_cast<std::size_t>(r)].troika_error();
        REQUIRE(error);
        CHECK(error->fault() == Fault::mismatch);
        CHECK(error->rank() == who);
        if (r != who) CHECK(error->operation() == "all_reduce");
        CHECK(error->sequence() == 2);
        CHECK_THAT(error->what(), ContainsSubstring("rank " + std::to_string(who) + " called " + text));
        CHECK_THAT(error->what(), ContainsSubstring("called all_reduce (sum) of 16 f32"));
      }
    }
  };
  std::vector<std::vector<float>> buffers(4, std::vector<float>(64));
  const auto buffer = [&](auto& c) { return std::span(buffers[static_cast<std::size_t>(c.rank())]); };
  check([&](auto& c) { c.all_reduce(buffer(c).first(17)); }, "all_reduce (sum) of 17 f32");
  check([&](auto& c) { c.all_reduce(buffer(c).first(16), Reduction::max); }, "all_reduce (max) of 16 f32");
  check([&](auto& c) { c.all_gather(buffer(c).first(4), buffer(c).subspan(16, 16)); }, "all_gather of 4 f32");
  check([&](auto& c) { c.broadcast(buffer(c), Root{1}); }, "broadcast from root 1 of 64 f32");
  check([&](auto& c) { c.barrier(); }, "barrier");
  check([&](auto& c) { c.split(0, 0); }, "split");
  check(
      [&](auto& c) {
        std::vector<std::int32_t> ints(16);
        c.all_reduce(std::span(ints));
      },
      "all_reduce (sum) of 16 i32");
}

TEMPLATE_TEST_CASE("all_to_all checks every pair of counts, and names the pair", "[threads]", OnThreads, OnSimulated) {
  TestType on(3);
  const auto outcomes = try_ranks(4, [&](auto& rank) {
    Communication c{rank, on.transport()};
    std::vector<std::size_t> send(4, 2), recv(4, 2);
    if (c.rank() == 2) send = {3, 2, 2, 1};
    std::vector<float> in(8), out(8);
    c.all_to_all(std::span(in), send, std::span(out), recv);
  });
  for (const auto& outcome : outcomes) {
    const auto error = outcome.troika_error();
    REQUIRE(error);
    CHECK(error->fault() == Fault::mismatch);
    CHECK(error->rank() == 2);
    CHECK_THAT(error->what(), ContainsSubstring("rank 2 sends 3 elements to rank 0, which expects 2"));
  }
}

TEST_CASE("Uneven counts that differ between ranks are a mismatch", "[threads]") {
  const auto outcomes = try_ranks(3, [&](auto& rank) {
    Communication c{rank, Threads{}};
    std::vector<std::size_t> counts{1, 2, 3};
    if (c.rank() == 1) counts = {2, 2, 2};
    if (c.rank() == 2) counts = {2, 1, 3};
    std::vector<float> in(counts[static_cast<std::size_t>(c.rank())]), out(6);
    c.all_gather(std::span(in), std::span(out), counts);
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::mismatch);
  }
}

TEST_CASE("A message of another size or type is an error on both sides, and for the group", "[threads]") {
  const auto outcomes = try_ranks(3, [&](auto& rank) {
    Communication c{rank, Threads{}};
    std::vector<float> floats(5);
    std::vector<std::int32_t> ints(4);
    if (c.rank() == 0)
      c.send(std::span(floats), 1);
    else if (c.rank() == 1)
      c.recv(std::span(ints), 0);
    else
      c.barrier();
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::mismatch);
    CHECK_THAT(outcome.what(), ContainsSubstring("rank 0 called send of 5 f32 to rank 1, which called recv of 4 i32"));
  }
  CHECK(outcomes[0].troika_error()->operation() == "send");
  CHECK(outcomes[1].troika_error()->operation() == "recv");
  CHECK(outcomes[2].troika_error()->operation() == "barrier");
}

TEST_CASE("A message where the peer is in a collective is found at once", "[threads]") {
  const auto begin = Clock::now();
  // Whoever comes last decides what most ranks do.
  for (const int late : {0, 1, 2}) {
    const auto outcomes = try_ranks(3, [&](auto& rank) {
      Communication c{rank, Threads{}, {.deadline = 60s}};
      float x = 1;
      c.all_reduce(std::span(&x, 1));
      if (c.rank() == late) std::this_thread::sleep_for(30ms);
      if (c.rank() == 1)
        c.recv(std::span(&x, 1), 0);
      else
        c.all_reduce(std::span(&x, 1));
    });
    for (const auto& outcome : outcomes) {
      REQUIRE(outcome.troika_error());
      CHECK(outcome.troika_error()->fault() == Fault::mismatch);
      CHECK(outcome.troika_error()->rank() == 1);
      CHECK_THAT(outcome.what(), ContainsSubstring("rank 1 called recv of 1 f32 from rank 0, which called all_reduce"));
    }
  }
  CHECK(Clock::now() - begin < 20s);
}

TEST_CASE("A rank that throws releases the others promptly, with its words", "[threads]") {
  for (const std::size_t count : {16, 100'000}) {
    const auto begin = Clock::now();
    const auto outcomes = one_differs(
        4, 1, 60s, [](auto&) { throw std::runtime_error("no more rope"); }, count);
    CHECK(Clock::now() - begin < 20s);
    for (const int r : {0, 2, 3}) {
      const auto error = outcomes[static_cast<std::size_t>(r)].troika_error();
      REQUIRE(error);
      CHECK(error->fault() == Fault::peer_failed);
      CHECK(error->rank() == 1);
      CHECK(error->operation() == "all_reduce");
      CHECK(error->sequence() == 2);
    }
    CHECK(outcomes[1].what() == "no more rope");
  }
}

TEST_CASE("A rank that leaves early is named", "[threads]") {
  const auto begin = Clock::now();
  const auto outcomes = one_differs(3, 2, 60s, [](auto&) {});
  CHECK(Clock::now() - begin < 20s);
  for (const int r : {0, 1}) {
    const auto error = outcomes[static_cast<std::size_t>(r)].troika_error();
    REQUIRE(error);
    CHECK(error->fault() == Fault::peer_failed);
    CHECK(error->rank() == 2);
    CHECK_THAT(error->what(), ContainsSubstring("rank 2 has left"));
  }
}

TEST_CASE("A rank that does not come is named within the deadline, and finds the communication ended", "[threads]") {
  std::atomic<int> given_up{0}, told{0};
  const auto outcomes = try_ranks(3, [&](auto& rank) {
    Communication c{rank, Threads{}, {.deadline = 1s}};
    if (c.rank() != 1) {
      const Last last{given_up};
      c.barrier();
    }
    while (given_up < 2) std::this_thread::sleep_for(5ms);
    try {
      c.barrier();
    } catch (const Error&) {
      ++told;
    }
    c.barrier();
  });
  CHECK(told == 1);
  for (const auto& outcome : outcomes) {
    const auto error = outcome.troika_error();
    REQUIRE(error);
    CHECK(error->fault() == Fault::timeout);
    CHECK(error->rank() == 1);
  }
  CHECK_THAT(outcomes[0].what(), ContainsSubstring("rank 1 did not arrive within 1 s"));
  CHECK_THAT(outcomes[1].what(), ContainsSubstring("the communication has ended"));
}

TEST_CASE("Ranks that both receive first get an error by the deadline", "[threads]") {
  const auto outcomes = try_ranks(2, [&](auto& rank) {
    Communication c{rank, Threads{}, {.deadline = 200ms}};
    float x = 0;
    c.recv(std::span(&x, 1), 1 - c.rank());
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::timeout);
  }
}

TEST_CASE("A rank that never connects is named", "[threads]") {
  std::atomic<int> given_up{0};
  const auto outcomes = try_ranks(2, [&](auto& rank) {
    if (rank.rank() == 1) {
      while (given_up < 1) std::this_thread::sleep_for(5ms);
      return;
    }
    const Last last{given_up};
    Communication c{rank, Threads{}, {.deadline = 200ms}};
    c.barrier();
  });
  REQUIRE(outcomes[0].troika_error());
  CHECK(outcomes[0].troika_error()->fault() == Fault::timeout);
  CHECK(outcomes[0].troika_error()->rank() == 1);
}

TEST_CASE("A failure in one group reaches the other groups of the world", "[threads]") {
  const auto outcomes = try_ranks(4, [&](auto& rank) {
    Communication world{rank, Threads{}};
    auto half = world.split(rank.rank() / 2, 0);
    half.barrier();
    if (rank.rank() == 3) throw std::runtime_error("gone");
    for (;;) half.barrier();
  });
  for (const int r : {0, 1, 2}) {
    REQUIRE(outcomes[static_cast<std::size_t>(r)].troika_error());
    CHECK(outcomes[static_cast<std::size_t>(r)].troika_error()->rank() == 3);
  }
}

TEST_CASE("Different kinds of transport in one world are refused", "[threads]") {
  struct Other {};
  World world(2);
  world.meet<Other>(0, [] { return std::make_shared<Other>(); });
  CHECK_THROWS_AS(world.meet<int>(1, [] { return std::make_shared<int>(); }), Error);
}

TEST_CASE("Buffers that go away with an error are not touched by slower peers", "[threads]") {
  // Large messages are read where they lie. Each rank's buffers die with the exception; sanitizers watch.
  for (std::uint64_t run = 0; run < 60; ++run) {
    const auto outcomes = try_ranks(4, [&](auto& rank) {
      Communication c{rank, Threads{{.staged_bytes = 0}}, {.deadline = 5s}};
      for (std::uint64_t i = 0;; ++i) {
        auto data = std::make_unique<std::vector<float>>(20'000, 1.0f);
        if (i == run % 7 && rank.rank() == static_cast<int>(run % 4)) {
          if (run % 2) throw std::runtime_error("gone");
          return;
        }
        if (run % 3 == 0)
          c.broadcast(std::span(*data), Root{2});
        else
          c.all_reduce(std::span(*data));
      }
    });
    int told = 0;
    for (const auto& outcome : outcomes)
      told += outcome.troika_error() && outcome.troika_error()->rank() == static_cast<int>(run % 4);
    CHECK(told == 3);
  }
}

TEST_CASE("The steady state allocates nothing", "[threads]") {
  allocations = 0;
  run_ranks(3, [&](auto& rank) {
    Communication c{rank, Threads{}};
    std::vector<float> small(30), large(30'000), gathered(90'000), third(10'000);
    const std::vector<std::size_t> counts{20'000, 0, 10'000}, same(3, 10'000);
    const std::vector<float> mine(counts[static_cast<std::size_t>(c.rank())]);
    const auto all = [&] {
      c.all_reduce(std::span(small));
      c.all_reduce(std::span(large), Reduction::max);
      c.all_gather(std::span(large), std::span(gathered));
      c.all_gather(std::span(mine), std::span(large), counts);
      c.reduce_scatter(std::span(large), std::span(third));
      c.broadcast(std::span(large), Root{1});
      c.all_to_all(std::span(large), same, std::span(gathered).first(30'000), same);
      if (c.rank() == 0) c.send(std::span(large), 1);
      if (c.rank() == 1) c.recv(std::span(large), 0);
      c.barrier();
    };
    all();
    counting = true;
    for (int i = 0; i < 20; ++i) all();
    counting = false;
  });
  CHECK(allocations == 0);
}
