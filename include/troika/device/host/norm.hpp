// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include <troika/core/shape.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>

namespace troika {

// Each row of x (rows, d) divided by its root mean square, times weight (d). y may be x.
inline void rms_norm(HostStream&, View<const float> x, std::span<const float> weight, float eps, View<float> y,
                     CpuLevel = cpu_level()) {
  const std::int64_t rows = x.shape()[0], d = x.shape()[1];
  expects(x.shape() == y.shape() && static_cast<std::int64_t>(weight.size()) == d, "rms_norm: shapes differ");
  for (std::int64_t i = 0; i < rows; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < d; ++j) sum += double(x[i * d + j]) * x[i * d + j];
    const auto scale = static_cast<float>(1 / std::sqrt(sum / static_cast<double>(d) + eps));
    for (std::int64_t j = 0; j < d; ++j) y[i * d + j] = x[i * d + j] * scale * weight[static_cast<std::size_t>(j)];
  }
}

// Each row of x (rows, d) less its mean, divided by its standard deviation, times weight (d) plus bias (d). y may be x.
inline void layer_norm(HostStream&, View<const float> x, std::span<const float> weight, std::span<const float> bias,
                       float eps, View<float> y, CpuLevel = cpu_level()) {
  const std::int64_t rows = x.shape()[0], d = x.shape()[1];
  expects(x.shape() == y.shape() && static_cast<std::int64_t>(weight.size()) == d &&
              static_cast<std::int64_t>(bias.size()) == d,
          "layer_norm: shapes differ");
  for (std::int64_t i = 0; i < rows; ++i) {
    double sum = 0, squares = 0;
    for (std::int64_t j = 0; j < d; ++j) sum += x[i * d + j];
    const double mean = sum / static_cast<double>(d);
    for (std::int64_t j = 0; j < d; ++j) squares += (x[i * d + j] - mean) * (x[i * d + j] - mean);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(d) + eps);
    for (std::int64_t j = 0; j < d; ++j) {
      const auto at = static_cast<std::size_t>(j);
      y[i * d + j] = static_cast<float>((x[i * d + j] - mean) * scale) * weight[at] + bias[at];
    }
  }
}

}  // namespace troika
