// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <string>
#include <vector>

#include <support/catch.hpp>

#include <troika/observe/alerts.hpp>

using namespace std::chrono_literals;
using troika::Alert;
using troika::AlertRule;
using troika::Alerts;

namespace {

// Rounds of one measurement each, second by second.
struct Watched {
  std::vector<std::string> told;
  Alerts alerts{[this](const Alert& alert) {
    told.push_back((alert.firing ? "fires " : "over ") + alert.subject + " " + alert.text);
  }};
  AlertRule rule{"heat", 10, 8, 3s};
  Alerts::TimePoint now{};

  void second(double value, const std::string& subject = "host:1") {
    alerts.measure({{rule, subject, value, std::to_string(static_cast<int>(value))}}, now);
    now += 1s;
  }
};

}  // namespace

TEST_CASE("an alert fires once its value was too high for long enough, and is resolved likewise") {
  Watched w;
  for (int i = 0; i < 3; ++i) w.second(11);
  CHECK(w.told.empty());
  w.second(12);  // three seconds after the first
  CHECK(w.told == std::vector<std::string>{"fires host:1 12"});
  REQUIRE(w.alerts.firing().size() == 1);
  CHECK(w.alerts.firing()[0].rule == "heat");
  CHECK(w.alerts.firing()[0].value == 12);
  for (int i = 0; i < 3; ++i) w.second(7);
  CHECK(w.told.size() == 1);
  w.second(6);
  CHECK(w.told.size() == 2);
  CHECK(w.told.back() == "over host:1 6");
  CHECK(w.alerts.firing().empty());
  for (int i = 0; i < 4; ++i) w.second(10);
  CHECK(w.told.size() == 3);
}

TEST_CASE("what goes up and down around the limit neither fires nor is resolved again and again") {
  Watched w;
  for (int i = 0; i < 20; ++i) w.second(i % 3 == 2 ? 9 : 11);
  CHECK(w.told.empty());
  for (int i = 0; i < 4; ++i) w.second(11);
  CHECK(w.told.size() == 1);
  for (int i = 0; i < 20; ++i) w.second(i % 2 == 0 ? 11 : 9);  // never below 8
  for (int i = 0; i < 20; ++i) w.second(i % 3 == 2 ? 9 : 7);   // never below 8 for 3 seconds
  CHECK(w.told.size() == 1);
}

TEST_CASE("an alert is of its subject, and is over when that is gone") {
  Watched w;
  w.rule.hold = 0s;
  w.second(11, "a");
  CHECK(w.told == std::vector<std::string>{"fires a 11"});
  w.second(11, "b");
  CHECK(w.told == std::vector<std::string>{"fires a 11", "fires b 11", "over a 11"});
  w.alerts.measure({}, w.now);
  CHECK(w.told.back() == "over b 11");
  CHECK(w.alerts.firing().empty());
}
