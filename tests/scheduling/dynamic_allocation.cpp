// SPDX-License-Identifier: Apache-2.0
#include <troika/scheduling/dynamic_allocation.hpp>

#include <array>
#include <atomic>
#include <barrier>
#include <cmath>
#include <limits>
#include <vector>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/task_scheduler.hpp>

#include "support/catch.hpp"

using namespace troika;
using Catch::Approx;

namespace {

std::vector<DeviceLoad> with_speeds(const std::vector<double>& speeds) {
  std::vector<DeviceLoad> loads;
  for (const double speed : speeds) {
    loads.emplace_back();
    loads.back().device = static_cast<int>(loads.size()) - 1;
    loads.back().speed = speed;
  }
  return loads;
}

}  // namespace

TEST_CASE("Dynamic shares follow the speeds; an unknown speed counts as the mean of the others") {
  const auto ratio = [](std::vector<double> speeds) {
    const auto shares = DynamicAllocation{}.shares(with_speeds(speeds));
    return shares[1] / shares[0];
  };
  CHECK(ratio({0, 0}) == Approx(1));
  CHECK(ratio({4, 2}) == Approx(0.5));
  CHECK(ratio({2, 0, 4}) == Approx(1.5));
  CHECK(ratio({0, 5}) == Approx(1));
}

TEST_CASE("Dynamic shares do not jitter, but follow a change that lasts") {
  DynamicAllocation allocation;
  const auto first = allocation.shares(with_speeds({100, 50}));
  for (const double noise : {51.0, 49.2, 50.7, 48.9}) CHECK(allocation.shares(with_speeds({100, noise})) == first);
  const auto changed = allocation.shares(with_speeds({100, 100}));
  CHECK(changed[0] == Approx(0.5));
}

TEST_CASE("A very slow device keeps a small share, so that it is measured again") {
  const auto shares = DynamicAllocation{DynamicOptions{.least = 0.1}}.shares(with_speeds({1e6, 1e-6}));
  CHECK(shares[1] / shares[0] == Approx(0.05));
}

TEST_CASE("A device in quarantine gets no share while another is healthy") {
  auto loads = with_speeds({1, 1, 2});
  loads[2].healthy = false;
  const auto shares = DynamicAllocation{}.shares(loads);
  CHECK(shares[2] == 0);
  CHECK(shares[0] == Approx(shares[1]));
  for (auto& load : loads) load.healthy = false;
  CHECK(DynamicAllocation{}.shares(loads)[2] == Approx(0.5));
}

TEST_CASE("Dynamic allocation picks the device that would be done first") {
  auto loads = with_speeds({100, 50});
  for (auto& load : loads) load.task_work = 10;
  CHECK(DynamicAllocation{}.pick(loads) == 0);
  loads[0].queued_work = 5;  // 0.15 s against 0.2 s
  CHECK(DynamicAllocation{}.pick(loads) == 0);
  loads[0].queued_work = 11;  // 0.21 s against 0.2 s
  CHECK(DynamicAllocation{}.pick(loads) == 1);
  // Work that nobody stated counts by the mean time of such tasks.
  auto plain = with_speeds({0, 0});
  plain[0].task_seconds = 1;
  plain[1].task_seconds = 3;
  plain[0].queued = plain[0].queued_unstated = 1;
  CHECK(DynamicAllocation{}.pick(plain) == 0);
  plain[0].queued = plain[0].queued_unstated = 3;
  CHECK(DynamicAllocation{}.pick(plain) == 1);
}

TEST_CASE("Options of dynamic allocation out of range are refused") {
  CHECK_THROWS_AS(DynamicAllocation(DynamicOptions{.hysteresis = -0.1}), Error);
  CHECK_THROWS_AS(DynamicAllocation(DynamicOptions{.hysteresis = 1}), Error);
  CHECK_THROWS_AS(DynamicAllocation(DynamicOptions{.least = 2}), Error);
}

// The devices really compute; one of them does every row twice. Time is counted in rows, so that nothing depends on how
// busy this machine is.
TEST_CASE("A device that runs at half speed gets about half of the next matmul") {
  constexpr std::int64_t rows = 240, inner = 9, columns = 7;
  std::vector<double> a(rows * inner), b(inner * columns), expected(rows * columns, 0.0);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<double>(i * 37 % 11) - 5;
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<double>(i * 53 % 13) - 6;
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c)
      for (std::size_t k = 0; k < inner; ++k) expected[r * columns + c] += a[r * inner + k] * b[k * columns + c];

  for (const int world : {2, 3, 4, 5, 8}) {
    TaskScheduler scheduler{host_devices(world), DynamicAllocation{}};
    const int slow = world - 1;
    std::vector<double> result;
    // One matmul; gives the rows that each rank computed.
    const auto matmul = [&] {
      result.assign(expected.size(), 0.0);
      const auto partition = scheduler.partition(rows);
      return scheduler.run_on_every_device([&](auto& rank) {
        const auto mine = partition[rank.rank()];
        double clock = 0;
        for (auto r = static_cast<std::size_t>(mine.begin); r < static_cast<std::size_t>(mine.end); ++r) {
          for (int pass = 0; pass < (rank.rank() == slow ? 2 : 1); ++pass) {
            for (std::size_t c = 0; c < columns; ++c) {
              double sum = 0;
              for (std::size_t k = 0; k < inner; ++k) sum += a[r * inner + k] * b[k * columns + c];
              result[r * columns + c] = sum;
            }
            clock += 0.001;
          }
        }
        scheduler.report(rank.rank(), static_cast<double>(mine.size()), clock);
        return mine.size();
      });
    };
    const auto before = matmul();
    CHECK(before[0] == before[static_cast<std::size_t>(slow)]);
    const auto after = matmul();
    CHECK(result == expected);
    const double ratio = static_cast<double>(after[static_cast<std::size_t>(slow)]) / static_cast<double>(after[0]);
    CHECK(ratio > 0.45);
    CHECK(ratio < 0.55);
    CHECK(matmul() == after);  // and it stays
  }
}

TEST_CASE("Queued tasks are divided by measured speed") {
  TaskScheduler scheduler{host_devices(2), DynamicAllocation{}};
  scheduler.report(0, 200, 2);
  scheduler.report(1, 100, 2);
  CHECK(scheduler.loads()[0].speed == Approx(100));
  std::atomic<bool> open{false};
  std::vector<Task<void>> gates, tasks;
  for (int i = 0; i < 2; ++i) gates.push_back(scheduler.submit([&] { open.wait(false); }, {.device = i}));
  for (int i = 0; i < 30; ++i) tasks.push_back(scheduler.submit([] {}, {.work = 10}));
  const auto loads = scheduler.loads();
  open = true;
  open.notify_all();
  std::array<int, 2> taken{};
  for (auto& task : tasks) ++taken[static_cast<std::size_t>(task.device())];
  CHECK(taken == std::array{20, 10});
  CHECK((loads[0].queued == 21 && loads[0].queued_unstated == 1 && loads[0].queued_work == Approx(200)));
  for (auto& gate : gates) gate.get();
}

TEST_CASE("Tasks that state their work are measured; reports that measure nothing are ignored or refused") {
  TaskScheduler scheduler{host_devices(1), DynamicAllocation{}};
  scheduler.submit([] {}).get();
  CHECK(scheduler.loads()[0].speed == 0);
  CHECK(scheduler.loads()[0].task_seconds > 0);
  scheduler.report(0, 0, 1);
  scheduler.report(0, 1, 0);
  CHECK(scheduler.loads()[0].speed == 0);
  scheduler.submit([] {}, {.work = 5}).get();
  CHECK(scheduler.loads()[0].speed > 0);

  const auto nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(scheduler.report(1, 1, 1), Error);
  CHECK_THROWS_AS(scheduler.report(-1, 1, 1), Error);
  CHECK_THROWS_AS(scheduler.report(0, -1, 1), Error);
  CHECK_THROWS_AS(scheduler.report(0, 1, nan), Error);
}

TEST_CASE("Ranks of a run that ask together get the same shares, and new ones when they ask again") {
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    TaskScheduler scheduler{host_devices(world), DynamicAllocation{}};
    std::barrier<> together(world);
    const auto answers = scheduler.run_on_every_device([&](auto& rank) {
      std::vector<std::vector<double>> seen;
      for (int step = 0; step < 20; ++step) {
        seen.push_back(scheduler.shares(rank));
        seen.push_back({static_cast<double>(scheduler.partition(rank, 1000)[0].size())});
        if (step == 10) together.arrive_and_wait();  // otherwise ranks run ahead of each other
        scheduler.report(rank.rank(), 1 + rank.rank() * step, 1);
      }
      return seen;
    });
    for (const auto& answer : answers) CHECK(answer == answers[0]);
    if (world > 1) CHECK(answers[0].front() != answers[0][38]);
  }
}
