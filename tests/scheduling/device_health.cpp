// SPDX-License-Identifier: Apache-2.0
#include <troika/scheduling/device_health.hpp>

#include "support/catch.hpp"

using namespace troika;
using std::chrono::milliseconds;

namespace {
const QuarantineRules rules{.failures = 3, .first = milliseconds{10}, .longest = milliseconds{35}};
constexpr DeviceHealth::Time at(int ms) { return DeviceHealth::Time(milliseconds(ms)); }
}  // namespace

TEST_CASE("Failures in a row put a device in quarantine; a success in between starts the count again") {
  DeviceHealth health;
  CHECK_FALSE(health.failed(at(0), false, rules));
  CHECK_FALSE(health.failed(at(0), false, rules));
  CHECK_FALSE(health.succeeded());
  CHECK_FALSE(health.failed(at(0), false, rules));
  CHECK_FALSE(health.failed(at(0), false, rules));
  CHECK(health.healthy());
  CHECK(health.failed(at(0), false, rules));
  CHECK_FALSE(health.healthy());
}

TEST_CASE("A device in quarantine is due for one probe at a time, after a wait that doubles up to a limit") {
  DeviceHealth health;
  for (int i = 0; i < 3; ++i) health.failed(at(0), false, rules);
  CHECK_FALSE(health.due(at(9)));
  CHECK(health.due(at(10)));
  health.begin_probe();
  CHECK_FALSE(health.due(at(11)));
  CHECK(health.failed(at(12), true, rules));
  CHECK_FALSE(health.due(at(31)));
  CHECK(health.due(at(32)));
  health.begin_probe();
  CHECK(health.failed(at(32), true, rules));
  CHECK(health.back_off() == milliseconds{35});
  CHECK_FALSE(health.due(at(66)));
  CHECK(health.due(at(67)));
  health.begin_probe();
  CHECK(health.succeeded());
  CHECK(health.healthy());
  CHECK_FALSE(health.due(at(1000)));
}

TEST_CASE("Tasks that were queued before the quarantine do not double its time") {
  DeviceHealth health;
  for (int i = 0; i < 3; ++i) health.failed(at(0), false, rules);
  CHECK_FALSE(health.failed(at(4), false, rules));
  CHECK(health.back_off() == milliseconds{10});
  CHECK_FALSE(health.due(at(13)));
  CHECK(health.due(at(14)));
}
