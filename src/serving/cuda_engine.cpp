// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/cuda_engine.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include <troika/communication/fastest.hpp>
#include <troika/core/error.hpp>
#include <troika/device/cuda/cuda.hpp>
#include <troika/serving/make_engine.hpp>

namespace troika::serving {

std::unique_ptr<Engine> make_engine(std::vector<CudaDevice> devices, const std::filesystem::path& model,
                                    EngineOptions options) {
  // By memory of the host, no GPU waits for another.
  RunTransports<Fastest> by{.steps = Fastest({.log = options.log}),
                            .loading = Fastest({.choice = FastestChoice::only(Way::host)})};
  return make_engine_by(std::move(by), std::move(devices), model, std::move(options));
}

ServerDevices server_gpus(int count, CudaOptions options) {
  const int there = cuda_device_count();
  if (count > there) {
    throw Error(Fault::unsupported, there == 0
                                        ? "no GPU, or no driver for it"
                                        : "there are " + std::to_string(there) + " GPUs, not " + std::to_string(count));
  }
  auto least = std::numeric_limits<std::size_t>::max();
  for (int gpu = 0; gpu < count; ++gpu) least = std::min(least, cuda_memory_available(gpu));
  const auto memory = static_cast<std::uint64_t>(count) * (least / 10 * 9);  // the rest is for CUDA's libraries
  return server_devices_by(Fastest({.log = Log::silent()}), count, memory,
                           [options](int gpu) { return CudaDevice(gpu, options, gpu); });
}

}  // namespace troika::serving
