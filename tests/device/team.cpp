// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <troika/device/host/team.hpp>

#include "inputs.hpp"

using namespace troika;

namespace {
// Cores that need not exist: pinning to them is refused silently.
std::vector<int> cores(int count) {
  std::vector<int> numbers;
  for (int i = 0; i < count; ++i) numbers.push_back(i);
  return numbers;
}
}  // namespace

TEST_CASE("every member of a team runs once, the caller as member 0") {
  for (const int size : {0, 1, 2, 3, 5}) {
    Team team(cores(size));
    const int members = std::max(size, 1);
    REQUIRE(team.size() == members);
    std::vector<int> runs(static_cast<std::size_t>(members), 0), sizes = runs;
    std::vector<std::thread::id> threads(static_cast<std::size_t>(members));
    for (int round = 0; round < 1000; ++round) {
      team.run([&](int member, int of) {
        const auto i = static_cast<std::size_t>(member);
        ++runs[i];
        sizes[i] = of;
        threads[i] = std::this_thread::get_id();
      });
    }
    CAPTURE(size);
    REQUIRE(runs == std::vector<int>(static_cast<std::size_t>(members), 1000));
    REQUIRE(sizes == std::vector<int>(static_cast<std::size_t>(members), members));
    REQUIRE(threads[0] == std::this_thread::get_id());
    REQUIRE(std::set<std::thread::id>(threads.begin(), threads.end()).size() == static_cast<std::size_t>(members));
  }
}

TEST_CASE("a team that slept wakes up") {
  Team team(cores(3));
  std::atomic<int> count{0};
  for (int round = 0; round < 5; ++round) {
    team.run([&](int member, int) {
      if (member == 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      ++count;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  REQUIRE(count == 15);
}

TEST_CASE("an exception of any member reaches the caller, and the team goes on") {
  for (const int thrower : {0, 1, 2}) {
    Team team(cores(3));
    std::atomic<int> finished{0};
    std::string caught;
    try {
      team.run([&](int member, int) {
        if (member == thrower) throw std::runtime_error("member " + std::to_string(member));
        ++finished;
      });
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    REQUIRE(caught == "member " + std::to_string(thrower));
    REQUIRE(finished == 2);
    team.run([&](int, int) { ++finished; });
    REQUIRE(finished == 5);
  }
  Team team(cores(3));
  REQUIRE_THROWS_AS(team.run([](int, int) { throw std::logic_error("all"); }), std::logic_error);
}

TEST_CASE("a team that never ran ends at once, and so does a team whose caller moved on") {
  { Team team(cores(4)); }
  for (int i = 0; i < 50; ++i) {
    Team team(cores(2));
    team.run([](int, int) {});
  }
}

TEST_CASE("a caller is pinned to its team's first core, where there is one") {
  std::thread([] {
    REQUIRE_FALSE(Team().pin_caller());
    REQUIRE_FALSE(Team({100000}).pin_caller());
#if defined(__linux__)
    const int core = available_cores().back();
    if (Team({core}).pin_caller()) REQUIRE(available_cores() == std::vector<int>{core});
#endif
  }).join();
}

TEST_CASE("a team knows which cores its threads were not let") {
  std::thread([] {
    const int core = available_cores().back();
    Team team({core, 100000, core, 100001});
    REQUIRE(team.refused_cores().empty());  // nobody has asked yet
    team.run([](int, int) {});
    REQUIRE(team.refused_cores() == std::vector<int>{100000, 100001});
    REQUIRE(team.pin_caller());
    REQUIRE(team.refused_cores() == std::vector<int>{100000, 100001});
  }).join();
}

TEST_CASE("parallel_for covers a range once, in whole grains") {
  for (const int size : {1, 2, 3}) {
    Team team(cores(size));
    for (const std::int64_t count : {0, 1, 2, 7, 64, 65, 1000}) {
      for (const std::int64_t grain : {1, 3, 16, 64, 2000}) {
        std::vector<int> hits(static_cast<std::size_t>(count), 0);
        std::atomic<int> crooked{0};
        parallel_for(team, count, grain, [&](std::int64_t begin, std::int64_t end) {
          if (begin % grain != 0 || (end % grain != 0 && end != count)) ++crooked;
          for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
        });
        REQUIRE(hits == std::vector<int>(static_cast<std::size_t>(count), 1));
        REQUIRE(crooked == 0);
      }
    }
  }
}
