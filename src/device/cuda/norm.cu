// SPDX-License-Identifier: Apache-2.0
#include <span>

#include <kernels/norm.cuh>
#include <troika/device/checks.hpp>
#include <troika/device/cuda/norm.hpp>

#include "queue.hpp"

namespace troika {

void rms_norm(CudaStream& stream, View<const float> x, std::span<const float> weight, float eps, View<float> y) {
  kernels::check_norm("rms_norm", x.shape(), y.shape(), weight.size(), weight.size());
  cuda::rms_norm({x.data(), nullptr, weight.data(), nullptr, y.data(), x.shape()[0], x.shape()[1], eps},
                 cuda::stream_of(stream));
}

void add_rms_norm(CudaStream& stream, View<const float> x, View<float> residual, std::span<const float> weight,
                  float eps, View<float> y) {
  kernels::check_norm("add_rms_norm", x.shape(), y.shape(), weight.size(), weight.size());
  kernels::same_shape("add_rms_norm", residual.shape(), y.shape());
  cuda::rms_norm({x.data(), residual.data(), weight.data(), nullptr, y.data(), x.shape()[0], x.shape()[1], eps},
                 cuda::stream_of(stream));
}

void layer_norm(CudaStream& stream, View<const float> x, std::span<const float> weight, std::span<const float> bias,
                float eps, View<float> y) {
  kernels::check_norm("layer_norm", x.shape(), y.shape(), weight.size(), bias.size());
  cuda::layer_norm({x.data(), nullptr, weight.data(), bias.data(), y.data(), x.shape()[0], x.shape()[1], eps},
                   cuda::stream_of(stream));
}

}  // namespace troika
