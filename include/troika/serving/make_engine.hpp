// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <troika/serving/encoder_engine.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/model_engine.hpp>
#include <troika/serving/run_self_check.hpp>
#include <troika/serving/server_devices.hpp>

// What is the same for all kinds of devices; each compiles it once.
namespace troika::serving {

// The engine of a model, whose ranks talk by the transports.
template <class Transport, Device D>
std::unique_ptr<Engine> make_engine_by(RunTransports<Transport> transports, std::vector<D> devices,
                                       const std::filesystem::path& model, EngineOptions options) {
  if (!models::ModelConfig::load(model).is_decoder()) {
    return std::make_unique<EncoderEngine<D, Transport>>(std::move(devices), model, std::move(options),
                                                         std::move(transports));
  }
  return std::make_unique<ModelEngine<D, Transport>>(std::move(devices), model, std::move(options),
                                                     std::move(transports));
}

// make(number) makes one of the devices, anew for each engine; transports_of(options) are those of an engine's ranks.
template <class Transports, class Make>
ServerDevices server_devices_by(Transports transports_of, int count, std::uint64_t memory, Make make) {
  const auto make_all = [make](std::span<const int> numbers) {
    std::vector<decltype(make(0))> devices;
    for (const int number : numbers) devices.push_back(make(number));
    return devices;
  };
  return {.count = count,
          .memory = memory,
          .make_engine =
              [transports_of, make_all](std::span<const int> numbers, const std::filesystem::path& model,
                                        EngineOptions options) {
                auto transports = transports_of(options);
                return make_engine_by(std::move(transports), make_all(numbers), model, std::move(options));
              },
          .self_check =
              [transports_of, make_all, count] {
                std::vector<int> all(static_cast<std::size_t>(count));
                std::iota(all.begin(), all.end(), 0);
                return self_check_by(transports_of({.log = Log::silent()}).steps, make_all(all));
              }};
}

}  // namespace troika::serving
