// SPDX-License-Identifier: Apache-2.0
#include <troika/scheduling/random_allocation.hpp>

#include <algorithm>
#include <set>
#include <vector>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/task_scheduler.hpp>

#include "support/catch.hpp"

using namespace troika;

namespace {

std::vector<int> picks(std::uint64_t seed, int world) {
  TaskScheduler scheduler{host_devices(world), RandomAllocation{seed}};
  std::vector<int> devices;
  for (int i = 0; i < 60; ++i) devices.push_back(scheduler.submit([] {}).device());
  return devices;
}

}  // namespace

TEST_CASE("Random allocation is the same for the same seed, and differs between seeds") {
  for (const int world : {2, 3, 4, 5, 8}) {
    const auto first = picks(7, world);
    CHECK(first == picks(7, world));
    CHECK(first != picks(8, world));
    CHECK(std::set(first.begin(), first.end()).size() == static_cast<std::size_t>(world));
  }
  CHECK(picks(7, 1) == std::vector<int>(60, 0));
}

TEST_CASE("Random shares are uneven, usable and fixed by the seed") {
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    RandomAllocation allocation{11}, same{11};
    const std::vector<DeviceLoad> loads(static_cast<std::size_t>(world));
    const auto shares = allocation.shares(loads);
    CHECK_NOTHROW(check_shares(shares, loads.size()));
    CHECK(*std::ranges::min_element(shares) > 0);
    (void)allocation.pick(loads);
    CHECK(allocation.shares(loads) == shares);  // ranks that ask one after the other must agree
    CHECK(same.shares(loads) == shares);
  }
}
