// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace troika {

// What a GPU says of itself. Some say less than others.
struct GpuReading {
  int index = -1;     // as nvidia-smi counts; -1: it was not asked by that
  bool lost = false;  // it has fallen off its bus, and says nothing
  std::string name{}, uuid{};
  std::optional<double> utilisation{};                   // share of the latest moments in which a kernel ran, 0 to 1
  std::optional<std::uint64_t> memory_used{}, memory{};  // bytes
  std::optional<double> celsius{}, watts{};
  std::optional<double> clock{}, memory_clock{};  // Hz, of the multiprocessors and of the memory
  std::optional<bool> slowed{};                   // its clocks are held down by heat, or by what feeds it power
};

// All GPUs of this machine, by NVML: the library that comes with NVIDIA's driver. It is looked for when the program
// runs, so that the same program runs where there is none. Thread-safe.
class Gpus {
 public:
  using Find = std::function<void*(const char* symbol)>;  // null: there is no such function

  Gpus() : Gpus("libnvidia-ml.so.1") {}
  explicit Gpus(const char* library) {
    library_.reset(dlopen(library, RTLD_NOW | RTLD_LOCAL));
    if (library_) {
      begin([this](const char* symbol) { return dlsym(library_.get(), symbol); });
    } else {
      const char* const why = dlerror();
      problem_ = why ? why : std::string(library) + " cannot be opened";
    }
  }
  explicit Gpus(const Find& find) { begin(find); }
  Gpus(const Gpus&) = delete;
  Gpus& operator=(const Gpus&) = delete;
  ~Gpus() {
    if (problem_.empty()) shutdown_();
  }

  // Why nothing can be read; empty where it can.
  const std::string& problem() const { return problem_; }

  // A reading takes a millisecond or so.
  std::vector<GpuReading> read() const {
    std::vector<GpuReading> readings;
    unsigned count = 0;
    if (!problem_.empty() || count_(&count) != success) return readings;
    for (unsigned i = 0; i < count; ++i) {
      Device device = nullptr;
      const auto found = handle_(i, &device);
      readings.push_back(read(found, device));
      readings.back().index = static_cast<int>(i);
    }
    return readings;
  }
  // Of one, by the name of its place on the bus, "0000:3B:00.0"; nothing where NVML knows of none there.
  std::optional<GpuReading> read(const std::string& pci_bus_id) const {
    if (!problem_.empty()) return std::nullopt;
    Device device = nullptr;
    const auto found = handle_on_bus_(pci_bus_id.c_str(), &device);
    if (found != success && found != gpu_is_lost) return std::nullopt;
    return read(found, device);
  }

 private:
  // The parts of NVML's interface that are used, as its documentation has them: they are the same in all versions.
  using Result = int;
  using Device = void*;
  struct Utilisation {
    unsigned gpu, memory;  // per cent
  };
  struct Memory {
    unsigned long long total, free, used;
  };
  static constexpr Result success = 0, gpu_is_lost = 15;
  static constexpr int gpu_sensor = 0, multiprocessors = 1, memory_bus = 2;
  // Reasons of the hardware, of its heat seen by the driver, of its heat, of the power supply.
  static constexpr unsigned long long slowdowns = 0x08 | 0x20 | 0x40 | 0x80;

  struct Close {
    void operator()(void* library) const { dlclose(library); }
  };

  void begin(const Find& find) {
    const auto bind = [&]<class F>(F*& function, const char* symbol) {
      function = reinterpret_cast<F*>(find(symbol));
      if (!function && problem_.empty()) problem_ = std::string("NVML has no ") + symbol;
    };
    Result (*init)() = nullptr;
    bind(init, "nvmlInit_v2");
    bind(shutdown_, "nvmlShutdown");
    bind(count_, "nvmlDeviceGetCount_v2");
    bind(handle_, "nvmlDeviceGetHandleByIndex_v2");
    bind(handle_on_bus_, "nvmlDeviceGetHandleByPciBusId_v2");
    bind(name_, "nvmlDeviceGetName");
    bind(uuid_, "nvmlDeviceGetUUID");
    bind(utilisation_, "nvmlDeviceGetUtilizationRates");
    bind(memory_, "nvmlDeviceGetMemoryInfo");
    bind(temperature_, "nvmlDeviceGetTemperature");
    bind(power_, "nvmlDeviceGetPowerUsage");
    bind(clock_, "nvmlDeviceGetClockInfo");
    for (const auto* symbol : {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"})
      if (!reasons_)
        reasons_ = reinterpret_cast<decltype(reasons_)>(find(symbol));  // drivers before 535 have the second
    if (!problem_.empty()) return;
    if (const auto result = init(); result != success) {
      problem_ = "NVML does not begin: error " + std::to_string(result);
    }
  }

  GpuReading read(Result found, Device device) const {
    GpuReading reading;
    reading.lost = found == gpu_is_lost;
    if (found != success) return reading;
    reading.name = text(name_, device);
    reading.uuid = text(uuid_, device);
    if (Utilisation value{}; utilisation_(device, &value) == success) reading.utilisation = value.gpu / 100.0;
    Memory value{};
    const auto answered = memory_(device, &value);
    reading.lost = answered == gpu_is_lost;
    if (answered == success) {
      reading.memory_used = value.used;
      reading.memory = value.total;
    }
    unsigned number = 0;
    if (temperature_(device, gpu_sensor, &number) == success) reading.celsius = number;
    if (power_(device, &number) == success) reading.watts = number / 1e3;
    if (clock_(device, multiprocessors, &number) == success) reading.clock = number * 1e6;
    if (clock_(device, memory_bus, &number) == success) reading.memory_clock = number * 1e6;
    if (unsigned long long why = 0; reasons_ && reasons_(device, &why) == success)
      reading.slowed = (why & slowdowns) != 0;
    return reading;
  }
  static std::string text(Result (*get)(Device, char*, unsigned), Device device) {
    std::array<char, 128> text{};
    if (get(device, text.data(), static_cast<unsigned>(text.size())) != success) return {};
    text.back() = '\0';
    return text.data();
  }

  std::unique_ptr<void, Close> library_;
  std::string problem_;
  Result (*shutdown_)() = nullptr;
  Result (*count_)(unsigned*) = nullptr;
  Result (*handle_)(unsigned, Device*) = nullptr;
  Result (*handle_on_bus_)(const char*, Device*) = nullptr;
  Result (*name_)(Device, char*, unsigned) = nullptr;
  Result (*uuid_)(Device, char*, unsigned) = nullptr;
  Result (*utilisation_)(Device, Utilisation*) = nullptr;
  Result (*memory_)(Device, Memory*) = nullptr;
  Result (*temperature_)(Device, int, unsigned*) = nullptr;
  Result (*power_)(Device, unsigned*) = nullptr;
  Result (*clock_)(Device, int, unsigned*) = nullptr;
  Result (*reasons_)(Device, unsigned long long*) = nullptr;
};

}  // namespace troika
