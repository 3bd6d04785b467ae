// SPDX-License-Identifier: Apache-2.0
#include <troika/scheduling/gang.hpp>

#include <atomic>
#include <barrier>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>

#include "support/catch.hpp"

using namespace troika;

namespace {

// What a rank that waits for others does in a transport.
void wait_for_failure(World& world) {
  while (!world.failed()) std::this_thread::yield();
  throw Error(Fault::peer_failed, world.failure(), {world.failed_rank(), "all_reduce", 1});
}

}  // namespace

TEST_CASE("A function runs on every device at the same time and gives its results in rank order") {
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    TaskScheduler scheduler{host_devices(world), StaticAllocation{}};
    std::barrier<> together(world);
    const auto results = scheduler.run_on_every_device([&](auto& rank) {
      together.arrive_and_wait();  // returns only if all ranks are here
      return rank.world_size() * 100 + rank.rank() * 10 + rank.device().index();
    });
    REQUIRE(results.size() == static_cast<std::size_t>(world));
    for (int i = 0; i < world; ++i) CHECK(results[static_cast<std::size_t>(i)] == world * 100 + i * 11);
  }
}

TEST_CASE("Results may be anything that moves, and nothing") {
  TaskScheduler scheduler{host_devices(3), StaticAllocation{}};
  struct NoDefault {
    explicit NoDefault(int v) : value(std::make_unique<int>(v)) {}
    std::unique_ptr<int> value;
  };
  auto moved = scheduler.run_on_every_device([](auto& rank) { return NoDefault(rank.rank()); });
  CHECK(*moved[2].value == 2);
  const auto flags = scheduler.run_on_every_device([](auto& rank) { return rank.rank() == 1; });
  CHECK(flags == std::vector<bool>{false, true, false});
  std::atomic<int> sum{0};
  static_assert(std::is_void_v<decltype(scheduler.run_on_every_device([&](auto&) {}))>);
  scheduler.run_on_every_device([&](auto& rank) { sum += rank.rank(); });
  CHECK(sum == 3);
}

TEST_CASE("Each rank stays on its own thread from run to run, with a new world each time") {
  TaskScheduler scheduler{host_devices(4), StaticAllocation{}};
  const auto threads = [&] { return scheduler.run_on_every_device([](auto&) { return std::this_thread::get_id(); }); };
  const auto first = threads();
  CHECK(std::set(first.begin(), first.end()).size() == 4);
  CHECK(threads() == first);
  auto old = scheduler.run_on_every_device([](auto& rank) { return rank.shared_world(); });
  CHECK((old[0] == old[1] && old[0] == old[3]));
  CHECK(scheduler.run_on_every_device([](auto& rank) { return rank.shared_world(); })[0] != old[0]);
}

TEST_CASE("The caller gets the exception of the rank that failed first, not the reports of its peers") {
  struct Mine {
    int rank;
  };
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    TaskScheduler scheduler{host_devices(world), StaticAllocation{}};
    for (int failing = 0; failing < world; ++failing) {
      std::atomic<int> released{0};
      int caught = -1;
      try {
        scheduler.run_on_every_device([&](auto& rank) {
          if (rank.rank() == failing) throw Mine{failing};
          try {
            wait_for_failure(rank.world());
          } catch (const Error& error) {
            if (error.rank() == failing) ++released;
            throw;
          }
        });
      } catch (const Mine& mine) {
        caught = mine.rank;
      }
      CHECK(caught == failing);
      CHECK(released == world - 1);
    }
    CHECK(scheduler.run_on_every_device([](auto& rank) { return rank.rank(); }).size() ==
          static_cast<std::size_t>(world));
  }
}

TEST_CASE("What a rank threw is told to the world, whatever its type") {
  TaskScheduler scheduler{host_devices(2), StaticAllocation{}};
  std::string told;
  const auto run = [&](auto raise) {
    return [&, raise](auto& rank) {
      if (rank.rank() == 1) raise();
      while (!rank.world().failed()) std::this_thread::yield();
      told = rank.world().failure();
    };
  };
  CHECK_THROWS_AS(scheduler.run_on_every_device(run([] { throw std::out_of_range("row 7"); })), std::out_of_range);
  CHECK(told == "row 7");
  CHECK_THROWS_AS(scheduler.run_on_every_device(run([] { throw 5; })), int);
  CHECK(told.find("not a std::exception") != std::string::npos);
}

TEST_CASE("If several ranks fail by themselves the first in time wins; reports count if there is nothing else") {
  TaskScheduler scheduler{host_devices(3), StaticAllocation{}};
  const auto by_turns = [&](std::vector<int> order) {
    return [&, order](auto& rank) {
      if (rank.rank() == order[0]) throw std::runtime_error("rank " + std::to_string(rank.rank()));
      while (!rank.world().failed()) std::this_thread::yield();
      throw std::runtime_error("rank " + std::to_string(rank.rank()));
    };
  };
  for (const int first : {0, 1, 2}) {
    CHECK_THROWS_WITH(scheduler.run_on_every_device(by_turns({first})), "rank " + std::to_string(first));
  }
  // A report that comes before its cause, from a rank that saw a connection drop.
  CHECK_THROWS_AS(scheduler.run_on_every_device([&](auto& rank) {
    if (rank.rank() == 0) throw Error(Fault::peer_failed, "rank 1 hung up", {1});
    while (!rank.world().failed()) std::this_thread::yield();
    if (rank.rank() == 1) throw std::bad_alloc();
  }),
                  std::bad_alloc);
  CHECK_THROWS_AS(scheduler.run_on_every_device([&](auto& rank) {
    if (rank.rank() == 0) throw Error(Fault::peer_failed, "the other machine is gone");
  }),
                  Error);
}

TEST_CASE("Runs from several threads take turns and do not deadlock, tasks in between") {
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    TaskScheduler scheduler{host_devices(world), StaticAllocation{}};
    std::atomic<int> at_once{0}, most{0}, ranks{0}, tasks{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) {
      callers.emplace_back([&] {
        for (int k = 0; k < 25; ++k) {
          std::barrier<> together(world);
          auto task = scheduler.submit([&] { ++tasks; });
          scheduler.run_on_every_device([&](auto& rank) {
            if (rank.rank() == 0) {
              const int now = ++at_once;
              if (now > most) most = now;
            }
            together.arrive_and_wait();
            ++ranks;
            if (rank.rank() == 0) --at_once;
            together.arrive_and_wait();
          });
          task.get();
        }
      });
    }
    for (auto& caller : callers) caller.join();
    CHECK(most == 1);
    CHECK(ranks == 100 * world);
    CHECK(tasks == 100);
  }
}

TEST_CASE("A run inside a run, or inside a task, is an error and no deadlock") {
  TaskScheduler scheduler{host_devices(2), StaticAllocation{}, {.log = Log::silent()}};
  const auto nested = [&] { scheduler.run_on_every_device([](auto&) {}); };
  CHECK_THROWS_WITH(scheduler.run_on_every_device([&](auto&) { nested(); }),
                    Catch::Matchers::ContainsSubstring("would wait for itself"));
  for (const auto lane : {Lane::compute, Lane::communication}) {
    CHECK_THROWS_AS(scheduler.submit([&] { nested(); }, {.lane = lane, .retry = false}).get(), Error);
  }
  // Another scheduler is another matter.
  TaskScheduler other{host_devices(2), StaticAllocation{}};
  CHECK(scheduler.submit([&] { return other.run_on_every_device([](auto& rank) { return rank.rank(); }).size(); })
            .get() == 2);
}

TEST_CASE("A rank computes while a task on its communication lane runs, and may wait for it") {
  for (const int world : {1, 2, 3, 4, 5, 8}) {
    TaskScheduler scheduler{host_devices(world), StaticAllocation{}};
    const auto sums = scheduler.run_on_every_device([&](auto& rank) {
      std::atomic<bool> computed{false};
      auto sent = scheduler.submit(
          [&] {
            computed.wait(false);
            return 10;
          },
          {.lane = Lane::communication, .device = rank.rank()});
      computed = true;  // would never be reached if the lanes were one thread
      computed.notify_all();
      return sent.get() + rank.rank();
    });
    for (int i = 0; i < world; ++i) CHECK(sums[static_cast<std::size_t>(i)] == 10 + i);
  }
}

TEST_CASE("A scheduler without devices is refused") {
  CHECK_THROWS_AS((TaskScheduler{std::vector<HostDevice>{}, StaticAllocation{}}), Error);
}
