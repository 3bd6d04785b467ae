// SPDX-License-Identifier: Apache-2.0
#include <troika/scheduling/allocation.hpp>

#include <limits>
#include <span>
#include <string>
#include <vector>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/task_scheduler.hpp>

#include "support/catch.hpp"

using namespace troika;

namespace {

// A user's own: everything to the device with the most free memory.
struct MostMemory {
  std::vector<double> shares(std::span<const DeviceLoad> loads) const {
    std::vector<double> shares;
    for (const auto& load : loads) shares.push_back(static_cast<double>(load.free_memory));
    return shares;
  }
  int pick(std::span<const DeviceLoad> candidates) const {
    std::size_t best = 0;
    for (std::size_t i = 1; i < candidates.size(); ++i)
      if (candidates[i].free_memory > candidates[best].free_memory) best = i;
    return static_cast<int>(best);
  }
};

struct NoPick {
  std::vector<double> shares(std::span<const DeviceLoad>) const { return {}; }
};
struct NoShares {
  int pick(std::span<const DeviceLoad>) const { return 0; }
};
struct SharesAsFloats : NoShares {
  std::vector<float> shares(std::span<const DeviceLoad>) const { return {}; }
};
struct PicksPointers : NoPick {
  const DeviceLoad* pick(std::span<const DeviceLoad> candidates) const { return candidates.data(); }
};
struct CannotMove : MostMemory {
  CannotMove() = default;
  CannotMove(const CannotMove&) = delete;
};

static_assert(Allocation<MostMemory>);
static_assert(!Allocation<NoPick>);
static_assert(!Allocation<NoShares>);
static_assert(!Allocation<SharesAsFloats>);
static_assert(!Allocation<PicksPointers>);
static_assert(!Allocation<CannotMove>);
static_assert(!Allocation<int>);
static_assert(!PartitioningAllocation<MostMemory>);

// Answers what the test tells it to.
struct Scripted {
  std::vector<double> answer;
  int choice = 0;
  std::vector<double> shares(std::span<const DeviceLoad>) const { return answer; }
  int pick(std::span<const DeviceLoad>) const { return choice; }
};

std::vector<HostDevice> devices_with(std::vector<std::size_t> limits) {
  std::vector<HostDevice> devices;
  for (const auto limit : limits) {
    HostOptions options;
    options.memory_limit = limit;
    devices.emplace_back(static_cast<int>(devices.size()), options);
  }
  return devices;
}

}  // namespace

TEST_CASE("A user's own allocation decides on shares and on tasks") {
  TaskScheduler scheduler{devices_with({1 << 20, 3 << 20}), MostMemory{}};
  CHECK(scheduler.partition(400).to_string() == "0..99 | 100..399");
  CHECK(scheduler.submit([] {}).device() == 1);
  // Memory in use counts: what is left on the second device is now less.
  auto held = scheduler.device(1).allocate((5 << 20) / 2);
  CHECK(scheduler.submit([] {}).device() == 0);
  CHECK(scheduler.loads()[1].free_memory < (1u << 20));
}

TEST_CASE("Shares that cannot be used are an error that says what would be valid") {
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const auto infinite = std::numeric_limits<double>::infinity();
  for (const auto& answer :
       std::vector<std::vector<double>>{{}, {1}, {1, 1, 1}, {0, 0}, {-1, 2}, {nan, 1}, {infinite, 1}, {1e308, 1e308}}) {
    CHECK_THROWS_AS((TaskScheduler{host_devices(2), Scripted{answer}}), Error);
  }
  CHECK_THROWS_WITH((TaskScheduler{host_devices(2), Scripted{{1, 1, 1}}}),
                    Catch::Matchers::ContainsSubstring("3 shares for 2 devices"));
}

TEST_CASE("A pick that names no candidate fails the task, not the program") {
  for (const int choice : {-1, 2, 1000}) {
    TaskScheduler scheduler{host_devices(2), Scripted{{1, 1}, choice}};
    bool ran = false;
    auto task = scheduler.submit([&] { ran = true; });
    CHECK_THROWS_WITH(task.get(), Catch::Matchers::ContainsSubstring("valid are 0 to 1"));
    CHECK_FALSE(ran);
    CHECK(task.device() == -1);
    CHECK_NOTHROW(scheduler.submit([] {}, {.device = 1}).get());  // a forced one asks nobody
  }
}
