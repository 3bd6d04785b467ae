// SPDX-License-Identifier: Apache-2.0
#include <troika/communication/simulated.hpp>

#include <chrono>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "communication/support.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("A message takes latency and size over bandwidth, on both clocks", "[simulated]") {
  SimulatedFabric fabric({.latency = 1e-3, .bandwidth = 1e6});
  run_ranks(2, [&](auto& rank) {
    Communication c{rank, Simulated{fabric}};
    std::vector<std::uint8_t> data(5000);
    if (c.rank() == 0) fabric.compute(0, 0.5);
    if (c.rank() == 0)
      c.send(std::span(data), 1);
    else
      c.recv(std::span(data), 0);
  });
  CHECK(fabric.now(0) == Catch::Approx(0.5 + 1e-3 + 5e-3));
  CHECK(fabric.now(1) == Catch::Approx(fabric.now(0)));
}

TEST_CASE("A straggler holds everybody up in virtual time", "[simulated]") {
  SimulatedFabric fabric({.latency = 0, .slowdown = {1, 1, 3}});
  run_ranks(3, [&](auto& rank) {
    Communication c{rank, Simulated{fabric}};
    for (int step = 0; step < 4; ++step) {
      fabric.compute(c.rank(), 2);
      c.barrier();
    }
  });
  for (int r = 0; r < 3; ++r) CHECK(fabric.now(r) == Catch::Approx(4 * 2 * 3.0));
}

TEST_CASE("Virtual time does not depend on the interleaving, and seeds give different ones", "[simulated]") {
  std::set<std::uint64_t> histories;
  std::set<double> times;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SimulatedFabric fabric({.latency = 1e-5, .bandwidth = 1e9, .seed = seed});
    run_ranks(4, [&](auto& rank) {
      Communication c{rank, Simulated{fabric}};
      std::vector<float> data(1000);
      for (int i = 0; i < 5; ++i) {
        fabric.compute(c.rank(), 0.001 * (c.rank() + 1));
        c.all_reduce(std::span(data));
      }
    });
    histories.insert(fabric.history());
    times.insert(fabric.now(0));
  }
  CHECK(histories.size() == 20);
  CHECK(times.size() == 1);
}

TEST_CASE("A deadline of an hour that runs out costs no real time", "[simulated]") {
  const auto begin = std::chrono::steady_clock::now();
  SimulatedFabric fabric({.failures = {{SimulatedFailure::Kind::stop, 1, 3}}});
  const auto outcomes = try_ranks(3, [&](auto& rank) {
    Communication c{rank, Simulated{fabric}, {.deadline = 1h}};
    for (;;) c.barrier();
  });
  CHECK(std::chrono::steady_clock::now() - begin < 20s);
  for (const int r : {0, 2}) {
    const auto error = outcomes[static_cast<std::size_t>(r)].troika_error();
    REQUIRE(error);
    CHECK(error->fault() == Fault::timeout);
    CHECK(error->rank() == 1);
    CHECK(error->sequence() == 3);
  }
  CHECK(std::max(fabric.now(0), fabric.now(2)) >= 3600);
}

TEST_CASE("Ranks that wait for each other in a circle time out", "[simulated]") {
  SimulatedFabric fabric;
  const auto outcomes = try_ranks(3, [&](auto& rank) {
    Communication c{rank, Simulated{fabric}};
    float x = 0;
    c.recv(std::span(&x, 1), (c.rank() + 1) % 3);
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::timeout);
  }
}

TEST_CASE("A message where the peer is in a collective is a mismatch", "[simulated]") {
  SimulatedFabric fabric;
  const auto outcomes = try_ranks(3, [&](auto& rank) {
    Communication c{rank, Simulated{fabric}};
    float x = 0;
    if (c.rank() == 1)
      c.recv(std::span(&x, 1), 2);
    else
      c.all_reduce(std::span(&x, 1));
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::mismatch);
    CHECK(outcome.troika_error()->rank() == 1);
  }
}

TEST_CASE("A rank that throws before it connects, or never does, hangs nobody", "[simulated]") {
  for (const bool throws : {true, false}) {
    SimulatedFabric fabric({.patience = 200ms});
    const auto outcomes = try_ranks(3, [&](auto& rank) {
      if (rank.rank() == 2) {
        if (throws) throw std::runtime_error("early");
        return;
      }
      Communication c{rank, Simulated{fabric}};
      c.barrier();
    });
    for (const int r : {0, 1}) {
      REQUIRE(outcomes[static_cast<std::size_t>(r)].troika_error());
      CHECK(outcomes[static_cast<std::size_t>(r)].troika_error()->rank() == 2);
    }
  }
}

TEST_CASE("A rank that ends while its communication lives on hangs nobody", "[simulated]") {
  SimulatedFabric fabric({.patience = 200ms});
  std::vector<std::unique_ptr<Communication<Simulated>>> kept(2);
  const auto outcomes = try_ranks(2, [&](auto& rank) {
    auto& c = kept[static_cast<std::size_t>(rank.rank())];
    c = std::make_unique<Communication<Simulated>>(rank, Simulated{fabric});
    c->barrier();
    if (rank.rank() == 0) c->barrier();
  });
  REQUIRE(outcomes[0].troika_error());
  CHECK(outcomes[0].troika_error()->fault() == Fault::timeout);
  CHECK(outcomes[0].troika_error()->rank() == 1);
}

TEST_CASE("A network without bandwidth is refused", "[simulated]") {
  CHECK_THROWS_AS(SimulatedFabric({.bandwidth = 0}), Error);
  CHECK_THROWS_AS(SimulatedFabric({.latency = -1}), Error);
}
