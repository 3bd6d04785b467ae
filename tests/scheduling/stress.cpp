// SPDX-License-Identifier: Apache-2.0
// Random graphs of tasks on devices that fail at random, under every allocation: each future completes, with the result
// that the graph demands, in an order that it allows. A seed replays its graph.
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/dynamic_allocation.hpp>
#include <troika/scheduling/random_allocation.hpp>
#include <troika/scheduling/round_robin.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>

#include "support/catch.hpp"

using namespace troika;

namespace {

struct Broken {
  int task;
};  // which task failed

struct Plan {
  std::vector<int> after;
  Lane lane = Lane::compute;
  bool retry = true;
  int forced = -1;
  std::vector<bool> fails;  // on device i
};

std::vector<Plan> random_graph(std::uint64_t seed, int devices, int tasks) {
  std::mt19937_64 random(seed);
  std::vector<double> flaky(static_cast<std::size_t>(devices));
  for (auto& probability : flaky) probability = random() % 3 == 0 ? static_cast<double>(random() % 90) / 100 : 0.02;
  std::vector<Plan> plans(static_cast<std::size_t>(tasks));
  for (int i = 0; i < tasks; ++i) {
    auto& plan = plans[static_cast<std::size_t>(i)];
    const auto dependencies = i == 0 ? 0 : random() % 10 == 0 ? random() % 20 : random() % 3;
    for (std::uint64_t d = 0; d < dependencies; ++d)
      plan.after.push_back(static_cast<int>(random() % static_cast<std::uint64_t>(i)));
    if (random() % 4 == 0) plan.lane = Lane::communication;
    plan.retry = random() % 12 != 0;
    if (random() % 12 == 0) plan.forced = static_cast<int>(random() % static_cast<std::uint64_t>(devices));
    const bool poison = random() % 40 == 0;
    for (const double probability : flaky)
      plan.fails.push_back(poison || static_cast<double>(random() % 1000) / 1000 < probability);
  }
  return plans;
}

// Empty when all is well, else what is not.
template <class Scheduler>
std::string run_graph(Scheduler& scheduler, const std::vector<Plan>& plans, std::uint64_t seed) {
  std::mt19937_64 random(seed ^ 0x5eed);
  const auto token = std::make_shared<int>(0);
  std::atomic<int> disorder{0};
  std::vector<Task<std::uint64_t>> tasks;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const auto& plan = plans[i];
    std::vector<AnyTask> after;
    std::vector<Task<std::uint64_t>> inputs;
    for (const int d : plan.after) {
      after.push_back(tasks[static_cast<std::size_t>(d)]);
      inputs.push_back(tasks[static_cast<std::size_t>(d)]);
    }
    tasks.push_back(scheduler.submit(
        [i, &plan, &disorder, token, inputs](HostDevice& device) {
          for (const auto& input : inputs)
            if (!input.done()) ++disorder;
          if (plan.fails[static_cast<std::size_t>(device.index())]) throw Broken{static_cast<int>(i)};
          std::uint64_t value = i + 1;
          for (const auto& input : inputs) value = value * 31 + input.get();
          return value;
        },
        {.name = "t",
         .lane = plan.lane,
         .work = static_cast<double>(i % 3),
         .after = std::move(after),
         .device = plan.forced,
         .retry = plan.retry}));
    if (random() % 64 == 0) std::this_thread::yield();
  }
  std::vector<std::uint64_t> values(plans.size());
  std::vector<bool> failed(plans.size());
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const auto& plan = plans[i];
    std::uint64_t expected = i + 1;
    bool skipped = false;
    for (const int d : plan.after) {
      skipped = skipped || failed[static_cast<std::size_t>(d)];
      expected = expected * 31 + values[static_cast<std::size_t>(d)];
    }
    int blamed = -1;
    try {
      values[i] = tasks[i].get();
    } catch (const Broken& broken) {
      failed[i] = true;
      blamed = broken.task;
    } catch (const std::exception& error) {
      return "task " + std::to_string(i) + " of seed " + std::to_string(seed) + " threw: " + error.what();
    }
    const int device = tasks[i].device();
    const std::string name = "task " + std::to_string(i) + " of seed " + std::to_string(seed);
    if (skipped) {
      if (!failed[i] || device != -1) return name + " ran although a task before it failed";
      if (blamed == static_cast<int>(i)) return name + " was skipped with an exception of its own";
      continue;
    }
    bool must_fail = true;
    if (plan.forced >= 0) {
      if (device != plan.forced) return name + " was not where it was forced to be";
      must_fail = plan.fails[static_cast<std::size_t>(device)];
    } else if (!plan.retry) {
      must_fail = plan.fails[static_cast<std::size_t>(device)];
    } else {
      for (const bool fails : plan.fails) must_fail = must_fail && fails;
    }
    if (failed[i] != must_fail) return name + (must_fail ? " should have failed" : " should not have failed");
    if (failed[i] && blamed != static_cast<int>(i)) return name + " has the exception of another";
    if (!failed[i] && values[i] != expected) return name + " has a wrong result";
  }
  if (disorder != 0) return "tasks of seed " + std::to_string(seed) + " ran before others that they come after";
  if (token.use_count() != 1) return "callables of seed " + std::to_string(seed) + " are still alive";
  return {};
}

template <class A>
std::string stress(std::uint64_t seed, A allocation) {
  const int devices = std::vector{1, 2, 3, 4, 5, 8}[seed % 6];
  SchedulerOptions options;
  options.log = Log::silent();
  options.quarantine.first = std::chrono::milliseconds(seed % 3);
  options.records_per_lane = 32;
  TaskScheduler scheduler{host_devices(devices), std::move(allocation), options};
  // Two threads submit graphs of their own, and ranks run in between.
  const auto mine = random_graph(seed, devices, 120), theirs = random_graph(seed + 1'000'000, devices, 120);
  std::string their_answer;
  std::thread other([&] { their_answer = run_graph(scheduler, theirs, seed + 1'000'000); });
  std::atomic<int> ranks{0};
  scheduler.run_on_every_device([&](auto&) { ++ranks; });
  auto answer = run_graph(scheduler, mine, seed);
  other.join();
  if (ranks != devices) return "ranks are missing";
  for (const auto& load : scheduler.loads())
    if (load.queued != 0 || load.queued_unstated != 0 || load.queued_work != 0)
      return "a device counts tasks that are done";
  return answer.empty() ? their_answer : answer;
}

}  // namespace

TEST_CASE("Random graphs with random failures complete rightly under every allocation") {
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    std::string answer;
    switch (seed / 6 % 4) {
      case 0: answer = stress(seed, StaticAllocation{}); break;
      case 1: answer = stress(seed, DynamicAllocation{}); break;
      case 2: answer = stress(seed, RoundRobin{}); break;
      default: answer = stress(seed, RandomAllocation{seed}); break;
    }
    CHECK(answer == "");
  }
}
