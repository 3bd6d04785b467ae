// SPDX-License-Identifier: Apache-2.0
#include <troika/scheduling/round_robin.hpp>

#include <vector>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/task_scheduler.hpp>

#include "support/catch.hpp"

using namespace troika;

TEST_CASE("Round robin takes the devices in turn, in every world") {
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    TaskScheduler scheduler{host_devices(world), RoundRobin{}};
    CHECK(scheduler.partition(world * 3) == Partition::even(world * 3, world));
    for (int i = 0; i < 3 * world; ++i) CHECK(scheduler.submit([] {}).device() == i % world);
  }
}

TEST_CASE("Round robin passes over devices that are no candidates") {
  RoundRobin allocation;
  std::vector<DeviceLoad> all(3), some;
  for (int i = 0; i < 3; ++i) all[static_cast<std::size_t>(i)].device = i;
  some = {all[0], all[2]};
  CHECK(allocation.pick(all) == 0);
  CHECK(allocation.pick(some) == 1);  // device 2
  CHECK(allocation.pick(all) == 0);
  CHECK(allocation.pick(all) == 1);
}
