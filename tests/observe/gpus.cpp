// SPDX-License-Identifier: Apache-2.0
#include <troika/observe/gpus.hpp>

#include <string>

#include <support/catch.hpp>
#include <support/fake_nvml.hpp>

using troika::Gpus;
using troika::test::FakeNvml;

TEST_CASE("GPUs are read through NVML, each as far as it answers") {
  {
    const Gpus gpus(FakeNvml::find());
    CHECK(gpus.problem().empty());
    CHECK(FakeNvml::begun == 1);
    const auto readings = gpus.read();
    REQUIRE(readings.size() == 2);
    CHECK(readings[0].index == 0);
    CHECK(readings[0].name == "NVIDIA Example");
    CHECK(readings[0].uuid == "GPU-1234");
    CHECK(readings[0].utilisation == 0.75);
    CHECK(readings[0].memory_used == 20ull << 30);
    CHECK(readings[0].memory == 80ull << 30);
    CHECK(readings[0].celsius == 66.0);
    CHECK(readings[0].watts == 350.5);
    CHECK(readings[0].clock == 1980e6);
    CHECK(readings[0].memory_clock == 2619e6);
    CHECK(readings[1].index == 1);
    CHECK(readings[1].name == std::string(127, 'x'));
    CHECK(readings[0].slowed == false);
    CHECK_FALSE(readings[1].slowed);
    CHECK_FALSE(readings[1].utilisation);
    CHECK_FALSE(readings[1].celsius);
    CHECK_FALSE(readings[1].watts);
    CHECK(readings[1].memory == 80ull << 30);

    FakeNvml::lost = true;
    const auto after = gpus.read();
    FakeNvml::lost = false;
    REQUIRE(after.size() == 2);
    CHECK(after[1].index == 1);
    CHECK(after[1].lost);
    CHECK_FALSE(after[0].lost);
    CHECK(after[1].name.empty());
    CHECK_FALSE(after[1].memory);
  }
  CHECK(FakeNvml::begun == 0);
}

TEST_CASE("a GPU is read by its place on the bus") {
  const Gpus gpus(FakeNvml::find());
  const auto second = gpus.read("0000:02:00.0");
  REQUIRE(second);
  CHECK(second->index == -1);
  CHECK_FALSE(second->lost);
  CHECK(second->memory == 80ull << 30);
  CHECK_FALSE(gpus.read("0000:03:00.0"));
  FakeNvml::lost = true;
  const auto after = gpus.read("0000:02:00.0");
  FakeNvml::lost = false;
  REQUIRE(after);
  CHECK(after->lost);
}

TEST_CASE("what holds the clocks of a GPU down is told from what does so all the time") {
  for (const auto* symbol : {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"}) {
    FakeNvml::reasons_symbol = symbol;
    const Gpus gpus(FakeNvml::find());
    // Nothing to do, clocks that were asked for, the usual limit of power, boost in step, a display.
    for (const unsigned long long usual : {0x1, 0x2, 0x4, 0x10, 0x100}) {
      FakeNvml::reasons_now = usual;
      CHECK(gpus.read()[0].slowed == false);
    }
    for (const unsigned long long slow : {0x8, 0x20, 0x40, 0x80, 0x44}) {
      FakeNvml::reasons_now = slow;
      CHECK(gpus.read()[0].slowed == true);
    }
    FakeNvml::reasons_now = 0;
  }
  FakeNvml::reasons_symbol = "nvmlDeviceGetCurrentClocksEventReasons";
  const Gpus old(FakeNvml::find(FakeNvml::reasons_symbol));
  CHECK(old.problem().empty());
  CHECK_FALSE(old.read()[0].slowed);
}

TEST_CASE("a machine without NVML has no GPUs, and says why") {
  const Gpus none("libthere-is-no-such-library.so.7");
  CHECK(none.read().empty());
  CHECK(none.problem().find("libthere-is-no-such-library.so.7") != std::string::npos);

  for (const auto& [symbol, function] : FakeNvml::functions()) {
    if (symbol == FakeNvml::reasons_symbol) continue;
    const Gpus old(FakeNvml::find(symbol));
    CHECK(old.problem() == "NVML has no " + symbol);
    CHECK(old.read().empty());
  }
  FakeNvml::init_result = 9;  // the driver is not loaded
  {
    const Gpus without_driver(FakeNvml::find());
    CHECK(without_driver.problem() == "NVML does not begin: error 9");
    CHECK(without_driver.read().empty());
  }
  FakeNvml::init_result = 0;
  CHECK(FakeNvml::begun == 0);
}
