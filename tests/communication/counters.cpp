// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include "support.hpp"
#include "support/catch.hpp"

#include <troika/communication/counters.hpp>

using namespace troika;
using namespace troika::test;

TEMPLATE_TEST_CASE("Calls are counted by operation, only while it is asked for, in groups that are split off, too",
                   "[communication]", OnThreads, OnSimulated) {
  TestType on(1);
  std::vector<CommunicationCounters> counters(3);
  (void)run_ranks(3, [&](auto& rank) {
    Communication c{rank, on.transport()};
    auto& mine = counters[static_cast<std::size_t>(rank.rank())];
    std::vector<float> data(10, 1.0f), all(30);
    c.barrier();
    c.count(&mine);
    for (int i = 0; i < 4; ++i) c.all_reduce(std::span<float>(data));
    c.all_gather(std::span<const float>(data), std::span<float>(all));
    auto part = c.split(rank.rank() == 0 ? 0 : 1, 0);
    part.broadcast(std::span<float>(data), Root{0});
    c.count(nullptr);
    c.all_reduce(std::span<float>(data));
    c.barrier();
    return 0;
  });
  for (const auto& mine : counters) {
    CHECK(mine.totals(Operation::barrier).calls == 0);
    CHECK(mine.totals(Operation::all_reduce).calls == 4);
    CHECK(mine.totals(Operation::all_reduce).bytes == 4 * 40);
    CHECK(mine.totals(Operation::all_reduce).seconds > 0);
    CHECK(mine.totals(Operation::all_gather).calls == 1);
    CHECK(mine.totals(Operation::all_gather).bytes == 120);
    CHECK(mine.totals(Operation::broadcast).calls == 1);
    CHECK(mine.totals(Operation::send).calls == 0);
  }
}

TEST_CASE("Who waits for a peer that comes late knows how long") {
  std::vector<CommunicationCounters> counters(2);
  (void)run_ranks(2, [&](auto& rank) {
    Communication c{rank, Threads{}};
    auto& mine = counters[static_cast<std::size_t>(rank.rank())];
    c.count(&mine);
    float enough = 0;
    while (enough == 0) {
      if (rank.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      enough = rank.rank() == 0 && mine.waited() > std::chrono::milliseconds(20) ? 1.0f : 0.0f;
      c.all_reduce(std::span<float>(&enough, 1));
    }
    return 0;
  });
  const double waited = 1e-9 * static_cast<double>(counters[0].waited().count());
  CHECK(waited >= 0.02);
  CHECK(waited <= counters[0].totals(Operation::all_reduce).seconds);
}
