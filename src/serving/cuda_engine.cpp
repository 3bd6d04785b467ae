// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/cuda_engine.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include <troika/communication/fastest.hpp>
#include <troika/device/cuda/cuda.hpp>
#include <troika/serving/make_engine.hpp>

namespace troika::serving {

namespace {

RunTransports<Fastest> transports(const EngineOptions& options, std::shared_ptr<FastestTimes> times = {}) {
  return {.steps = Fastest({.log = options.log, .times = std::move(times)}),
          // By memory of the host, no GPU waits for another.
          .loading = Fastest({.choice = FastestChoice::only(Way::host)})};
}

}  // namespace

std::unique_ptr<Engine> make_engine(std::vector<CudaDevice> devices, const std::filesystem::path& model,
                                    EngineOptions options) {
  auto by = transports(options);
  return make_engine_by(std::move(by), std::move(devices), model, std::move(options));
}

ServerDevices server_gpus(std::vector<int> gpus, CudaOptions options) {
  gpus = cuda_gpus(std::move(gpus));
  const int count = static_cast<int>(gpus.size());
  auto least = std::numeric_limits<std::size_t>::max();
  for (const int gpu : gpus) least = std::min(least, cuda_memory_available(gpu));
  const auto memory = static_cast<std::uint64_t>(count) * (least / 10 * 9);  // the rest is for CUDA's libraries
  // Of all engines: a model that is loaded again finds its GPUs timed.
  const auto by = [times = std::make_shared<FastestTimes>()](const EngineOptions& engine) {
    return transports(engine, times);
  };
  return server_devices_by(by, count, memory, [options, gpus](int number) {
    return CudaDevice(number, options, gpus[static_cast<std::size_t>(number)]);
  });
}

}  // namespace troika::serving
