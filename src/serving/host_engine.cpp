// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <memory>
#include <utility>

#include <troika/communication/threads.hpp>
#include <troika/device/host/host.hpp>
#include <troika/device/host/system_memory.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/make_engine.hpp>
#include <troika/serving/server_devices.hpp>

namespace troika::serving {

std::unique_ptr<Engine> make_engine(std::vector<HostDevice> devices, const std::filesystem::path& model,
                                    EngineOptions options) {
  return make_engine_by(RunTransports<Threads>{}, std::move(devices), model, std::move(options));
}

ServerDevices server_cores(std::vector<std::vector<int>> device_cores, HostOptions options) {
  const auto count = static_cast<int>(device_cores.size());
  const auto make = [cores = std::move(device_cores), options = std::move(options)](int number) {
    auto host = options;
    host.cores = cores[static_cast<std::size_t>(number)];
    return HostDevice(number, std::move(host));
  };
  const auto by_threads = [](const EngineOptions&) { return RunTransports<Threads>{}; };
  return server_devices_by(by_threads, count, memory_available(HostDevice()), make);
}

}  // namespace troika::serving
