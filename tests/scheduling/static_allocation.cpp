// SPDX-License-Identifier: Apache-2.0
#include <troika/scheduling/static_allocation.hpp>

#include <array>
#include <limits>
#include <vector>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/task_scheduler.hpp>

#include "support/catch.hpp"

using namespace troika;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("Static allocation is even by default, in every world") {
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    TaskScheduler scheduler{host_devices(world), StaticAllocation{}};
    const auto partition = scheduler.partition(40);
    REQUIRE(partition.parts() == world);
    for (int rank = 0; rank < world; ++rank) {
      CHECK(partition[rank].size() >= 40 / world);
      CHECK(partition[rank].size() <= 40 / world + 1);
    }
    CHECK(partition == Partition::even(40, world));
  }
}

TEST_CASE("Static weights divide a stage in proportion, in whole blocks") {
  TaskScheduler scheduler{host_devices(2), StaticAllocation{{1.0, 3.0}}};
  CHECK(scheduler.partition(12).to_string() == "0..2 | 3..11");
  CHECK(scheduler.partition(32, 8).to_string() == "0..7 | 8..31");
  CHECK_THROWS_AS(scheduler.partition(33, 8), Error);
}

TEST_CASE("Sizes by hand are exact, and scale with the extent") {
  TaskScheduler scheduler{host_devices(3), StaticAllocation::by_hand({5, 0, 2})};
  CHECK(scheduler.partition(7).to_string() == "0..4 | - | 5..6");
  CHECK(scheduler.partition(28).to_string() == "0..19 | - | 20..27");
  CHECK(scheduler.partition(0).to_string() == "- | - | -");
  CHECK_THROWS_WITH(scheduler.partition(8), ContainsSubstring("multiples of 7"));
  CHECK_THROWS_AS(scheduler.partition(7, 7), Error);  // 5 is no whole block of 7
}

TEST_CASE("Weights and sizes that make no sense are refused when they are stated") {
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const auto most = std::numeric_limits<std::int64_t>::max();
  CHECK_THROWS_AS((StaticAllocation{{1.0, nan}}), Error);
  CHECK_THROWS_AS((StaticAllocation{{1.0, -1.0}}), Error);
  CHECK_THROWS_AS((StaticAllocation{{0.0, 0.0}}), Error);
  CHECK_THROWS_AS(StaticAllocation::by_hand({}), Error);
  CHECK_THROWS_AS(StaticAllocation::by_hand({0, 0}), Error);
  CHECK_THROWS_AS(StaticAllocation::by_hand({-1, 2}), Error);
  CHECK_THROWS_AS(StaticAllocation::by_hand({most, most}), Error);
  CHECK_THROWS_WITH((TaskScheduler{host_devices(3), StaticAllocation{{1.0, 3.0}}}),
                    ContainsSubstring("2 shares for 3 devices"));
}

TEST_CASE("Static allocation hands out tasks in proportion to the weights") {
  TaskScheduler scheduler{host_devices(3), StaticAllocation{{1.0, 0.0, 3.0}}};
  std::array<int, 3> taken{};
  for (int i = 0; i < 40; ++i) ++taken[static_cast<std::size_t>(scheduler.submit([] {}).device())];
  CHECK(taken == std::array{10, 0, 30});
}

TEST_CASE("A device that comes back does not get all the tasks that it missed") {
  StaticAllocation allocation;
  std::vector<DeviceLoad> both(2), one(1);
  both[1].device = 1;
  for (int i = 0; i < 100; ++i) CHECK(allocation.pick(one) == 0);
  std::array<int, 2> taken{};
  for (int i = 0; i < 10; ++i) ++taken[static_cast<std::size_t>(allocation.pick(both))];
  CHECK(taken == std::array{5, 5});
}
