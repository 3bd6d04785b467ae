// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <troika/device/host/device.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/self_check.hpp>

namespace troika::serving {

// What a server computes on: devices, numbered from 0, and what is done with them.
struct ServerDevices {
  int count = 0;
  std::uint64_t memory = 0;  // bytes that all of them together have for models
  std::function<std::unique_ptr<Engine>(std::span<const int> devices, const std::filesystem::path& model,
                                        EngineOptions options)>
      make_engine{};
  std::function<SelfCheck()> self_check{};  // of all, which do nothing else
};

// The cores of each device, neighbours in a row. A device without cores is one thread that the system places.
ServerDevices server_cores(std::vector<std::vector<int>> device_cores, HostOptions options = {});

}  // namespace troika::serving
