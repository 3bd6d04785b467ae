// SPDX-License-Identifier: Apache-2.0
#include <troika/scheduling/task.hpp>

#include <atomic>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/round_robin.hpp>
#include <troika/scheduling/task_scheduler.hpp>

#include "support/catch.hpp"

using namespace troika;
using Catch::Matchers::ContainsSubstring;

namespace {
SchedulerOptions quiet() { return {.log = Log::silent()}; }
}  // namespace

TEST_CASE("A task gives its result to every handle, as often as asked") {
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    TaskScheduler scheduler{host_devices(world), RoundRobin{}};
    const auto task = scheduler.submit([] { return std::string("forty-two, in a string of some length"); });
    const auto copy = task;
    CHECK(task.get() == copy.get());
    CHECK(&task.get() == &copy.get());
    CHECK(task.get().size() == 37);
    CHECK(scheduler.submit([](HostDevice& device) { return device.index(); }).get() == 1 % world);
    static_assert(std::is_void_v<decltype(scheduler.submit([] {}).get())>);
  }
}

TEST_CASE("Callables and results that only move are welcome") {
  TaskScheduler scheduler{host_devices(2), RoundRobin{}};
  auto task = scheduler.submit([number = std::make_unique<int>(7)] { return std::make_unique<int>(*number + 1); });
  CHECK(*task.get() == 8);
  const std::unique_ptr<int> mine = std::move(task).get();
  CHECK(*mine == 8);
  struct Big {
    double values[500];
  };
  CHECK(scheduler.submit([big = Big{{1, 2, 3}}] { return big; }).get().values[2] == 3);
}

TEST_CASE("What a callable captured is gone when the task is done, and the result when its last handle is") {
  TaskScheduler scheduler{host_devices(2), RoundRobin{}, quiet()};
  auto token = std::make_shared<int>(1);
  auto task = scheduler.submit([token] { return token; });
  task.wait();
  CHECK(token.use_count() == 2);  // here and in the result
  auto failed = scheduler.submit([token] { throw std::runtime_error("no"); });
  failed.wait();
  CHECK(token.use_count() == 2);
  task = {};
  CHECK(token.use_count() == 1);
}

TEST_CASE("A task starts when everything that it comes after is done") {
  TaskScheduler scheduler{host_devices(3), RoundRobin{}};
  std::atomic<bool> open{false};
  auto gate = scheduler.submit([&] {
    open.wait(false);
    return 1;
  });
  auto quick = scheduler.submit([] { return 2; });
  auto sum = scheduler.submit([gate, quick] { return gate.get() + quick.get(); }, {.after = {gate, quick}});
  auto last = scheduler.submit([sum] { return sum.get() * 10; }, {.after = {sum, sum, sum}});
  quick.get();
  CHECK_FALSE(sum.done());
  CHECK_FALSE(last.done());
  // Tasks that wait keep no lane busy: these go past them.
  for (int i = 0; i < 10; ++i) scheduler.submit([] {}, {.device = 1}).get();
  for (int i = 0; i < 10; ++i) scheduler.submit([] {}, {.device = 2}).get();
  open = true;
  open.notify_all();
  CHECK(last.get() == 30);
  CHECK(scheduler.submit([last] { return last.get() + 1; }, {.after = {last}}).get() == 31);  // done already
}

TEST_CASE("Dependents of a failed task get its exception without running") {
  TaskScheduler scheduler{host_devices(2), RoundRobin{}, quiet()};
  struct Mine {
    int value;
  };
  std::atomic<int> ran{0};
  auto bad = scheduler.submit([] { throw Mine{5}; });
  auto child = scheduler.submit([&] { ++ran; }, {.after = {bad}});
  auto grandchild = scheduler.submit([&] { return ++ran; }, {.after = {child}});
  const auto value_of = [](auto& task) {
    try {
      task.get();
    } catch (const Mine& mine) {
      return mine.value;
    }
    return 0;
  };
  CHECK(value_of(grandchild) == 5);
  CHECK(value_of(child) == 5);
  CHECK(value_of(child) == 5);  // again
  auto late = scheduler.submit([&] { ++ran; }, {.after = {bad}});
  CHECK(value_of(late) == 5);
  CHECK(late.device() == -1);
  CHECK(ran == 0);
}

TEST_CASE("Wide and long graphs work") {
  for (const int world : {1, 2, 5}) {
    TaskScheduler scheduler{host_devices(world), RoundRobin{}, quiet()};
    std::atomic<int> before{0};
    std::vector<AnyTask> all;
    for (int i = 0; i < 2000; ++i) all.push_back(scheduler.submit([&] { ++before; }));
    auto join = scheduler.submit([&] { return before.load(); }, {.after = all});
    std::vector<Task<int>> fan;
    for (int i = 0; i < 2000; ++i)
      fan.push_back(scheduler.submit([join, i] { return join.get() + i; }, {.after = {join}}));
    long sum = 0;
    for (auto& task : fan) sum += task.get();
    CHECK(sum == 2000L * 2000 + 1999L * 1000);

    // A chain as long as a stack is not; first one that succeeds, then one that fails.
    for (const bool fails : {false, true}) {
      auto last = scheduler.submit([fails] {
        if (fails) throw 1;
        return 0;
      });
      for (int i = 0; i < 30'000; ++i) last = scheduler.submit([last] { return last.get() + 1; }, {.after = {last}});
      if (fails)
        CHECK_THROWS_AS(last.get(), int);
      else
        CHECK(last.get() == 30'000);
    }
  }
}

TEST_CASE("Handles can be dropped, and outlive their scheduler") {
  std::atomic<int> ran{0};
  Task<int> kept;
  {
    TaskScheduler scheduler{host_devices(2), RoundRobin{}, quiet()};
    for (int i = 0; i < 100; ++i) scheduler.submit([&] { ++ran; }, {.device = 0});
    scheduler.submit([&] { ++ran; }, {.device = 0}).get();
    CHECK(ran == 101);
    kept = scheduler.submit([] { return 6; });
    kept.wait();
  }
  CHECK(kept.get() == 6);
  CHECK(kept.device() >= 0);
}

TEST_CASE("Waiting where it could last for ever is refused") {
  TaskScheduler scheduler{host_devices(2), RoundRobin{}, quiet()};
  for (const auto lane : {Lane::compute, Lane::communication}) {
    auto outer = scheduler.submit(
        [&] {
          auto inner = scheduler.submit([] {}, {.name = "inner"});
          auto same = scheduler.submit([] {}, {.name = "same lane", .lane = lane, .after = {inner}});
          for (int i = 0; i < 3; ++i) same.get();
        },
        {.lane = lane, .retry = false});
    // It is done at once sometimes; when not, this is what must come.
    try {
      outer.get();
    } catch (const Error& error) {
      CHECK_THAT(error.what(), ContainsSubstring("name it in `after`"));
    }
  }
  std::atomic<bool> open{false};
  auto gate = scheduler.submit([&] { open.wait(false); }, {.device = 0});
  auto waits = scheduler.submit([&] { gate.get(); }, {.device = 1});
  CHECK_THROWS_WITH(waits.get(), ContainsSubstring("task 'task' could last for ever"));
  open = true;
  open.notify_all();
  gate.get();
}

TEST_CASE("Options that make no sense are refused at once") {
  TaskScheduler scheduler{host_devices(2), RoundRobin{}};
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(scheduler.submit([] {}, {.device = 2}), ContainsSubstring("valid are 0 to 1"));
  CHECK_THROWS_AS(scheduler.submit([] {}, {.device = -2}), Error);
  CHECK_THROWS_AS(scheduler.submit([] {}, {.work = nan}), Error);
  CHECK_THROWS_AS(scheduler.submit([] {}, {.work = -1}), Error);
  CHECK_THROWS_WITH(scheduler.submit([] {}, {.after = {AnyTask{}}}), ContainsSubstring("names no task"));
  CHECK_THROWS_AS(Task<int>{}.get(), Error);

  TaskScheduler other{host_devices(1), RoundRobin{}};
  std::atomic<bool> open{false};
  auto gate = other.submit([&] { open.wait(false); }, {.name = "theirs"});
  CHECK_THROWS_WITH(scheduler.submit([] {}, {.after = {gate}}), ContainsSubstring("'theirs', which another scheduler"));
  open = true;
  open.notify_all();
  gate.get();
  CHECK_NOTHROW(scheduler.submit([] {}, {.after = {gate}}).get());
}

TEST_CASE("Many threads submit, wait and share handles") {
  TaskScheduler scheduler{host_devices(2), RoundRobin{}};
  std::atomic<long> sum{0};
  std::vector<std::thread> threads;
  auto shared = scheduler.submit([] { return 1; });
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, shared] {
      std::vector<Task<int>> mine;
      for (int i = 0; i < 500; ++i)
        mine.push_back(scheduler.submit([shared, i] { return shared.get() + i; }, {.after = {shared}}));
      for (auto& task : mine) sum += task.get();
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(sum == 4L * (500 + 499 * 250));
}
