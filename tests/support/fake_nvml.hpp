// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>

#include <troika/observe/gpus.hpp>

namespace troika::test {

// NVML with two GPUs, of which the second says less. What NVML's own structures hold is written here again.
struct FakeNvml {
  struct Utilisation {
    unsigned gpu, memory;
  };
  struct Memory {
    unsigned long long total, free, used;
  };
  static constexpr int not_supported = 3, not_found = 6, gone = 15;

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
  static inline const char* reasons_symbol = "nvmlDeviceGetCurrentClocksEventReasons";
  static inline unsigned long long reasons_now = 0;
  static int reasons(void* device, unsigned long long* to) {
    if (number(device) == 1) return not_supported;
    *to = reasons_now;
    return 0;
  }
  static int on_bus(const char* name, void** to) {
    const std::string place = name;
    const unsigned index = place == "0000:01:00.0" ? 0 : place == "0000:02:00.0" ? 1 : 2;
    return index == 2 ? not_found : handle(index, to);
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
            {"nvmlDeviceGetHandleByPciBusId_v2", reinterpret_cast<void*>(on_bus)},
            {"nvmlDeviceGetName", reinterpret_cast<void*>(name)},
            {"nvmlDeviceGetUUID", reinterpret_cast<void*>(uuid)},
            {"nvmlDeviceGetUtilizationRates", reinterpret_cast<void*>(utilisation)},
            {"nvmlDeviceGetMemoryInfo", reinterpret_cast<void*>(memory)},
            {"nvmlDeviceGetTemperature", reinterpret_cast<void*>(temperature)},
            {"nvmlDeviceGetPowerUsage", reinterpret_cast<void*>(power)},
            {"nvmlDeviceGetClockInfo", reinterpret_cast<void*>(clock)},
            {reasons_symbol, reinterpret_cast<void*>(reasons)}};
  }
  static Gpus::Find find(const std::string& without = "") {
    return [without](const char* symbol) -> void* {
      const auto all = functions();
      const auto found = all.find(symbol);
      return symbol == without || found == all.end() ? nullptr : found->second;
    };
  }
};

}  // namespace troika::test
