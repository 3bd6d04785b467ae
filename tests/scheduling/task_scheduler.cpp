// SPDX-License-Identifier: Apache-2.0
#include <troika/scheduling/task_scheduler.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/dynamic_allocation.hpp>
#include <troika/scheduling/random_allocation.hpp>
#include <troika/scheduling/round_robin.hpp>
#include <troika/scheduling/static_allocation.hpp>

#include "support/catch.hpp"

using namespace troika;
using Catch::Matchers::ContainsSubstring;
using std::chrono::milliseconds;

namespace {

// What a scheduler logs, and a clock that only the test moves.
struct Bench {
  std::vector<std::string> lines;
  std::atomic<int> now_ms{0};

  SchedulerOptions options() {
    SchedulerOptions options;
    options.log = Log([this](LogLevel, std::string_view line) { lines.emplace_back(line); });
    options.clock = [this] { return std::chrono::steady_clock::time_point(milliseconds(now_ms.load())); };
    options.quarantine = {.failures = 2, .first = milliseconds{100}, .longest = milliseconds{300}};
    return options;
  }
};

// A task that only some devices can do.
auto needs(const std::vector<bool>& works) {
  return [works](HostDevice& device) {
    if (!works[static_cast<std::size_t>(device.index())]) throw std::runtime_error("broken device");
    return device.index();
  };
}

}  // namespace

TEST_CASE("A task that throws is logged and falls back to the next best device") {
  for (const int world : {2, 3, 4, 5, 8}) {
    Bench bench;
    TaskScheduler scheduler{host_devices(world), StaticAllocation{}, bench.options()};
    std::vector<bool> works(static_cast<std::size_t>(world), false);
    works.back() = true;
    auto task = scheduler.submit(needs(works), {.name = "job"});
    CHECK(task.get() == world - 1);
    CHECK(task.attempts() == world);
    REQUIRE(bench.lines.size() == static_cast<std::size_t>(world - 1));
    CHECK(bench.lines[0] == "task 'job' failed on device 0, try 1: broken device");
  }
}

TEST_CASE("The caller gets the first exception when no device is left, and no device is blamed for it") {
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    Bench bench;
    TaskScheduler scheduler{host_devices(world), StaticAllocation{}, bench.options()};
    for (int i = 0; i < 5; ++i) {
      std::atomic<int> tries{0};
      auto task = scheduler.submit([&] { throw ++tries; });
      int caught = 0;
      try {
        task.get();
      } catch (int value) {
        caught = value;
      }
      CHECK(caught == 1);
      CHECK(tries == world);
    }
    for (const auto& load : scheduler.loads()) CHECK((load.healthy && load.failed == 5));
  }
}

TEST_CASE("A task without retry, or forced on a device, is tried once") {
  Bench bench;
  TaskScheduler scheduler{host_devices(3), RoundRobin{}, bench.options()};
  std::atomic<int> tries{0};
  CHECK_THROWS_AS(scheduler
                      .submit(
                          [&] {
                            ++tries;
                            throw 1;
                          },
                          {.retry = false})
                      .get(),
                  int);
  CHECK_THROWS_AS(scheduler
                      .submit(
                          [&] {
                            ++tries;
                            throw 1;
                          },
                          {.device = 2})
                      .get(),
                  int);
  CHECK(tries == 2);
}

TEST_CASE("A device that fails repeatedly is quarantined, tried again later, and heals") {
  Bench bench;
  TaskScheduler scheduler{host_devices(2), RoundRobin{}, bench.options()};
  std::atomic<bool> broken{true};
  const auto run = [&] {
    return scheduler
        .submit([&](HostDevice& device) {
          if (device.index() == 0 && broken) throw std::runtime_error("broken");
          return device.index();
        })
        .device();
  };
  const auto failures = [&] { return scheduler.loads()[0].failed; };
  while (scheduler.loads()[0].healthy) CHECK(run() == 1);
  CHECK(failures() == 2);
  CHECK(bench.lines.back() == "device 0 goes into quarantine; it is tried again in 100 ms");

  for (int i = 0; i < 10; ++i) CHECK(run() == 1);
  bench.now_ms = 99;
  CHECK((run() == 1 && failures() == 2));
  bench.now_ms = 100;
  CHECK((run() == 1 && failures() == 3));  // the probe; the caller sees nothing of it
  CHECK(bench.lines.back() == "device 0 stays in quarantine; it is tried again in 200 ms");
  bench.now_ms = 299;
  CHECK((run() == 1 && failures() == 3));
  bench.now_ms = 300;
  CHECK((run() == 1 && failures() == 4));
  CHECK(bench.lines.back() == "device 0 stays in quarantine; it is tried again in 300 ms");  // not 400: the longest
  broken = false;
  bench.now_ms = 600;
  CHECK(run() == 0);
  CHECK(bench.lines.back() == "device 0 works again and leaves quarantine");
  CHECK(scheduler.loads()[0].healthy);
  CHECK(run() + run() == 1);  // in turn again
}

TEST_CASE("Only one task probes a device in quarantine, the others go elsewhere") {
  Bench bench;
  TaskScheduler scheduler{host_devices(2), RoundRobin{}, bench.options()};
  for (int i = 0; i < 2; ++i) CHECK_THROWS_AS(scheduler.submit([] { throw 1; }, {.device = 0}).get(), int);
  CHECK_FALSE(scheduler.loads()[0].healthy);
  bench.now_ms = 100;
  std::atomic<bool> open{false};
  auto probe = scheduler.submit([&](HostDevice& device) {
    if (device.index() == 0) open.wait(false);
  });
  for (int i = 0; i < 5; ++i) CHECK(scheduler.submit([] {}).device() == 1);
  open = true;
  open.notify_all();
  CHECK(probe.device() == 0);
  CHECK(scheduler.loads()[0].healthy);
}

TEST_CASE("If all devices are in quarantine tasks still run, first where the last failure is the longest ago") {
  Bench bench;
  TaskScheduler scheduler{host_devices(3), StaticAllocation{}, bench.options()};
  for (const int device : {1, 0, 2}) {
    bench.now_ms += 1;
    for (int i = 0; i < 2; ++i) CHECK_THROWS_AS(scheduler.submit([] { throw 1; }, {.device = device}).get(), int);
  }
  for (const auto& load : scheduler.loads()) CHECK_FALSE(load.healthy);
  auto task = scheduler.submit(needs({true, false, true}));
  CHECK(task.get() == 0);
  CHECK(task.attempts() == 2);  // 1, then 0
  CHECK(scheduler.loads()[0].healthy);
}

TEST_CASE("A device in quarantine still takes part in runs on every device") {
  Bench bench;
  TaskScheduler scheduler{host_devices(2), StaticAllocation{}, bench.options()};
  for (int i = 0; i < 2; ++i) CHECK_THROWS_AS(scheduler.submit([] { throw 1; }, {.device = 0}).get(), int);
  CHECK(scheduler.run_on_every_device([](auto& rank) { return rank.rank(); }).size() == 2);
}

TEST_CASE("A scheduler that is destroyed finishes what runs and cancels the rest") {
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    auto owner = std::make_unique<TaskScheduler<RoundRobin, HostDevice>>(host_devices(world), RoundRobin{});
    auto& scheduler = *owner;
    std::atomic<int> started{0}, ran{0};
    std::vector<Task<int>> running;
    std::vector<AnyTask> waiting;
    for (int i = 0; i < world; ++i) {
      const auto occupy = [&, i] {
        ++started;
        // Until a task is refused at once, which is how one sees that the scheduler is going.
        for (;; std::this_thread::sleep_for(milliseconds(1))) {
          auto refused = scheduler.submit([&] { ++ran; }, {.name = "late", .device = i});
          if (refused.done()) return 1;
        }
      };
      running.push_back(scheduler.submit(occupy, {.device = i}));
    }
    while (started < world) std::this_thread::yield();
    for (int i = 0; i < 20; ++i) waiting.push_back(scheduler.submit([&] { ++ran; }));
    for (int i = 0; i < 20; ++i)
      waiting.push_back(scheduler.submit([&] { ++ran; }, {.after = {running[0], waiting.back()}}));
    std::thread watcher([last = waiting.back()] { last.wait(); });  // must not hang
    owner.reset();
    watcher.join();
    CHECK(ran == 0);
    for (auto& task : running) CHECK(task.get() == 1);
    for (auto& task : waiting) {
      REQUIRE(task.done());
      CHECK_THROWS_WITH(task.check(), ContainsSubstring("its scheduler was destroyed"));
    }
  }
}

TEST_CASE("Schedulers come and go, idle, busy and with a rank that threw") {
  for (int i = 0; i < 60; ++i) {
    TaskScheduler scheduler{
        host_devices(1 + i % 5), RandomAllocation{static_cast<std::uint64_t>(i)}, {.log = Log::silent()}};
    if (i % 3 == 1)
      for (int k = 0; k < 50; ++k) scheduler.submit([] {});
    if (i % 3 == 2) CHECK_THROWS_AS(scheduler.run_on_every_device([](auto&) { throw 1; }), int);
  }
  SUCCEED();
}

TEST_CASE("Options of the scheduler out of range are refused") {
  const auto with = [](SchedulerOptions options) { TaskScheduler scheduler{host_devices(1), RoundRobin{}, options}; };
  CHECK_THROWS_AS(with({.quarantine = {.failures = 0}}), Error);
  CHECK_THROWS_AS(with({.quarantine = {.first = milliseconds(-1)}}), Error);
  CHECK_THROWS_AS(with({.quarantine = {.first = milliseconds(10), .longest = milliseconds(5)}}), Error);
  CHECK_THROWS_AS(with({.speed_memory = 1}), Error);
}
