// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <utility>

#include <troika/device/host/host.hpp>
#include <troika/serving/encoder_engine.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/model_engine.hpp>

namespace troika::serving {

std::unique_ptr<Engine> make_engine(std::vector<HostDevice> devices, const std::filesystem::path& model,
                                    EngineOptions options) {
  if (!models::ModelConfig::load(model).is_decoder()) {
    return std::make_unique<EncoderEngine<HostDevice>>(std::move(devices), model, std::move(options));
  }
  return std::make_unique<ModelEngine<HostDevice>>(std::move(devices), model, std::move(options));
}

}  // namespace troika::serving
