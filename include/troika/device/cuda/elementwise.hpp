// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <troika/core/activation.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/cuda/device.hpp>

// What device/host/elementwise.hpp says, on a GPU.
namespace troika {

void apply_gelu(CudaStream& stream, View<const float> x, View<float> y);
void apply_gelu_tanh(CudaStream& stream, View<const float> x, View<float> y);
void activate_multiply(CudaStream& stream, Activation activation, View<const float> gate, View<const float> up,
                       View<float> y);
void apply_soft_cap(CudaStream& stream, float cap, View<const float> x, View<float> y);
void multiply(CudaStream& stream, float factor, View<const float> x, View<float> y);
void add(CudaStream& stream, View<const float> a, View<const float> b, View<float> y);
void add_products(CudaStream& stream, View<const float> x, View<float> y);

}  // namespace troika
