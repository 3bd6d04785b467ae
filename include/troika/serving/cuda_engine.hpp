// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include <troika/device/cuda/device.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/server_devices.hpp>

// The engine on GPUs, where troika::cuda is built.
namespace troika::serving {

std::unique_ptr<Engine> make_engine(std::vector<CudaDevice> devices, const std::filesystem::path& model,
                                    EngineOptions options = {});

// The devices of a server are cuda_gpus(gpus); each engine has streams of its own on them. Which way is fastest between
// some of them is timed when the first engine on them is loaded.
ServerDevices server_gpus(std::vector<int> gpus = {}, CudaOptions options = {});

}  // namespace troika::serving
