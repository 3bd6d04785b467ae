// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include <troika/core/shape.hpp>
#include <troika/device/cuda/device.hpp>

// What device/host/norm.hpp says, on a GPU; weight and bias are in its memory.
namespace troika {

void rms_norm(CudaStream& stream, View<const float> x, std::span<const float> weight, float eps, View<float> y);
void add_rms_norm(CudaStream& stream, View<const float> x, View<float> residual, std::span<const float> weight,
                  float eps, View<float> y);
void layer_norm(CudaStream& stream, View<const float> x, std::span<const float> weight, std::span<const float> bias,
                float eps, View<float> y);

}  // namespace troika
