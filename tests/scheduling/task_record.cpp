// SPDX-License-Identifier: Apache-2.0
#include <troika/scheduling/task_record.hpp>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include <troika/device/host/topology.hpp>
#include <troika/scheduling/round_robin.hpp>
#include <troika/scheduling/task_scheduler.hpp>

#include "support/catch.hpp"

using namespace troika;

TEST_CASE("A ring keeps the latest records and no more") {
  for (const std::size_t capacity : {0u, 1u, 3u}) {
    RecordRing ring(capacity);
    for (std::uint64_t id = 1; id <= 10; ++id) ring.add([&](TaskRecord& record) { record.id = id; });
    std::vector<TaskRecord> records;
    ring.append_to(records);
    std::vector<std::uint64_t> ids;
    for (const auto& record : records) ids.push_back(record.id);
    std::ranges::sort(ids);
    REQUIRE(ids.size() == capacity);
    for (std::size_t i = 0; i < capacity; ++i) CHECK(ids[i] == 11 - capacity + i);
  }
}

TEST_CASE("Each try of each task is recorded: device, lane, attempt, waiting, running, outcome") {
  TaskScheduler scheduler{host_devices(2), RoundRobin{}, {.log = Log::silent()}};
  auto failing = scheduler.submit(
      [](HostDevice& device) {
        if (device.index() == 0) throw 1;
      },
      {.name = "first"});
  failing.get();
  auto broken = scheduler.submit([] { throw 2; }, {.name = "broken", .lane = Lane::communication, .retry = false});
  auto skipped = scheduler.submit([] {}, {.name = "skipped", .after = {failing, broken}});
  CHECK_THROWS_AS(skipped.get(), int);

  auto records = scheduler.records();
  std::ranges::stable_sort(records, {}, &TaskRecord::id);
  REQUIRE(records.size() == 4);
  CHECK((records[0].name == "first" && records[0].device == 0 && records[0].attempt == 1));
  CHECK(records[0].outcome == TaskOutcome::failed);
  CHECK((records[1].name == "first" && records[1].device == 1 && records[1].attempt == 2));
  CHECK(records[1].outcome == TaskOutcome::succeeded);
  CHECK((records[2].name == "broken" && records[2].lane == Lane::communication && records[2].attempt == 1));
  CHECK(records[2].outcome == TaskOutcome::failed);
  CHECK((records[3].name == "skipped" && records[3].device == -1 && records[3].attempt == 0));
  CHECK(records[3].outcome == TaskOutcome::skipped);
  CHECK(to_string(records[3].outcome) == "skipped");
  CHECK(records[0].finished <= records[1].finished);
  for (const auto& record : records) CHECK((record.waited_seconds >= 0 && record.ran_seconds >= 0));

  const auto loads = scheduler.loads();
  CHECK(loads[0].failed + loads[1].failed == 2);
  CHECK(loads[0].succeeded + loads[1].succeeded == 1);
  CHECK((loads[0].queued == 0 && loads[1].queued == 0));
}

TEST_CASE("Records do not grow with the number of tasks") {
  TaskScheduler scheduler{host_devices(1), RoundRobin{}, {.records_per_lane = 16}};
  for (int i = 0; i < 500; ++i) scheduler.submit([] {}).get();
  const auto records = scheduler.records();
  REQUIRE(records.size() == 16);
  CHECK(records.back().id == 500);
  CHECK(records.front().id == 485);
}

TEST_CASE("Tasks are spans on the tracks of their device, under names that outlive the scheduler") {
  Trace trace;
  {
    TaskScheduler scheduler{host_devices(2), RoundRobin{}, {.trace = &trace}};
    for (int i = 0; i < 2; ++i) {
      scheduler.submit([] {}, {.name = std::string("a name too long to be stored inside ") + "of a string"}).get();
      scheduler.submit([] {}, {.name = "send", .lane = Lane::communication}).get();
    }
  }
  std::ostringstream out;
  trace.write(out);
  const auto count = [text = out.str()](const std::string& part) {
    int found = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
    return found;
  };
  CHECK(count("\"name\":\"a name too long to be stored inside of a string\"") == 2);
  CHECK(count("\"name\":\"send\"") == 2);
  CHECK(count("rank 0 compute") == 1);
  CHECK(count("rank 1 communication") == 1);
}
