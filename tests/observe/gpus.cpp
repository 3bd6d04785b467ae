// SPDX-License-Identifier: Apache-2.0
#include <troika/observe/gpus.hpp>

#include <cstring>
#include <map>
#include <string>

#include <support/catch.hpp>

using troika::Gpus;

namespace {

// NVML with two GPUs, of which the second says less. What NVML's own structures hold is written here again.
struct FakeNvml {
  struct Utilisation {
    unsigned gpu, memory;
  };
  struct Memory {
    unsigned long long total, free, used;
  };
  static constexpr int not_supported = 3, gone = 15;

  static inline int begun = 0, init_result = 0;
  static inline bool lost = false;  // the second

  static unsigned number(void* device) { return static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(device)) - 1; }
  static int init() {
    if (init_result == 0) ++begun;
    return init_result;
  }
  static int shutdown() {
    --begun;
    return 0;
  }
  static int count(unsigned* to) {
    *to = 2;
    return 0;
  }
  static int handle(unsigned index, void** to) {
    if (lost && index == 1) return gone;
    *to = reinterpret_cast<void*>(std::uintptr_t{index} + 1);
    return 0;
  }
  static int name(void* device, char* to, unsigned size) {
    std::strncpy(to, number(device) == 0 ? "NVIDIA Example" : std::string(500, 'x').c_str(), size);
    return 0;
  }
  static int uuid(void*, char* to, unsigned size) {
    std::strncpy(to, "GPU-1234", size);
    return 0;
  }
  static int utilisation(void* device, Utilisation* to) {
    if (number(device) == 1) return not_supported;
    *to = {75, 20};
    return 0;
  }
  static int memory(void*, Memory* to) {
    *to = {80ull << 30, 60ull << 30, 20ull << 30};
    return 0;
  }
  static int temperature(void* device, int sensor, unsigned* to) {
    if (sensor != 0 || number(device) == 1) return not_supported;
    *to = 66;
    return 0;
  }
  static int power(void* device, unsigned* to) {
    if (number(device) == 1) return not_supported;
    *to = 350500;
    return 0;
  }
  static int clock(void*, int type, unsigned* to) {
    *to = type == 1 ? 1980 : type == 2 ? 2619 : 0;
    return 0;
  }

  static std::map<std::string, void*> functions() {
    return {{"nvmlInit_v2", reinterpret_cast<void*>(init)},
            {"nvmlShutdown", reinterpret_cast<void*>(shutdown)},
            {"nvmlDeviceGetCount_v2", reinterpret_cast<void*>(count)},
            {"nvmlDeviceGetHandleByIndex_v2", reinterpret_cast<void*>(handle)},
            {"nvmlDeviceGetName", reinterpret_cast<void*>(name)},
            {"nvmlDeviceGetUUID", reinterpret_cast<void*>(uuid)},
            {"nvmlDeviceGetUtilizationRates", reinterpret_cast<void*>(utilisation)},
            {"nvmlDeviceGetMemoryInfo", reinterpret_cast<void*>(memory)},
            {"nvmlDeviceGetTemperature", reinterpret_cast<void*>(temperature)},
            {"nvmlDeviceGetPowerUsage", reinterpret_cast<void*>(power)},
            {"nvmlDeviceGetClockInfo", reinterpret_cast<void*>(clock)}};
  }
  static Gpus::Find find(const std::string& without = "") {
    return [without](const char* symbol) -> void* {
      const auto all = functions();
      const auto found = all.find(symbol);
      return symbol == without || found == all.end() ? nullptr : found->second;
    };
  }
};

}  // namespace

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
    CHECK_FALSE(readings[1].utilisation);
    CHECK_FALSE(readings[1].celsius);
    CHECK_FALSE(readings[1].watts);
    CHECK(readings[1].memory == 80ull << 30);

    FakeNvml::lost = true;
    const auto after = gpus.read();
    FakeNvml::lost = false;
    REQUIRE(after.size() == 2);
    CHECK(after[1].index == 1);
    CHECK(after[1].name.empty());
    CHECK_FALSE(after[1].memory);
  }
  CHECK(FakeNvml::begun == 0);
}

TEST_CASE("a machine without NVML has no GPUs, and says why") {
  const Gpus none("libthere-is-no-such-library.so.7");
  CHECK(none.read().empty());
  CHECK(none.problem().find("libthere-is-no-such-library.so.7") != std::string::npos);

  for (const auto& [symbol, function] : FakeNvml::functions()) {
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
