// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <troika/core/shape.hpp>
#include <troika/device/checks.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/kernels.hpp>

namespace troika {

namespace kernels {

inline std::int64_t rows_grain(std::int64_t d) { return 8192 / std::max<std::int64_t>(d, 1) + 1; }

template <class R>
void rms_norm_row(const float* x, const float* weight, float eps, float* y, std::int64_t d) {
  const double mean = R::sum_of_squares(x, d, 0) / static_cast<double>(d);
  R::normalize(x, 0, static_cast<float>(1 / std::sqrt(mean + static_cast<double>(eps))), weight, nullptr, y, d);
}

}  // namespace kernels

// Each row of x (rows, d) divided by its root mean square, times weight (d). y may be x.
inline void rms_norm(HostStream& stream, View<const float> x, std::span<const float> weight, float eps, View<float> y,
                     CpuLevel level = cpu_level()) {
  kernels::check_norm("rms_norm", x.shape(), y.shape(), weight.size(), weight.size());
  const std::int64_t rows = x.shape()[0], d = x.shape()[1];
  kernels::at_level<kernels::Rows>(level, [&]<class R>(R) {
    parallel_for(stream.device().team(), rows, kernels::rows_grain(d), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        kernels::rms_norm_row<R>(x.data() + i * d, weight.data(), eps, y.data() + i * d, d);
    });
  });
}

// residual += x, then y = rms_norm(residual), row by row: the norm reads what the first-level cache still has. The bits
// of add and rms_norm; y may be x.
inline void add_rms_norm(HostStream& stream, View<const float> x, View<float> residual, std::span<const float> weight,
                         float eps, View<float> y, CpuLevel level = cpu_level()) {
  kernels::check_norm("add_rms_norm", x.shape(), y.shape(), weight.size(), weight.size());
  kernels::same_shape("add_rms_norm", residual.shape(), y.shape());
  const std::int64_t rows = x.shape()[0], d = x.shape()[1];
  kernels::at_level<kernels::Rows>(level, [&]<class R>(R) {
    parallel_for(stream.device().team(), rows, kernels::rows_grain(d), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        float* const sum = residual.data() + i * d;
        R::add(x.data() + i * d, sum, d);
        kernels::rms_norm_row<R>(sum, weight.data(), eps, y.data() + i * d, d);
      }
    });
  });
}

// Each row of x (rows, d) less its mean, divided by its standard deviation, times weight (d) plus bias (d). y may be x.
inline void layer_norm(HostStream& stream, View<const float> x, std::span<const float> weight,
                       std::span<const float> bias, float eps, View<float> y, CpuLevel level = cpu_level()) {
  kernels::check_norm("layer_norm", x.shape(), y.shape(), weight.size(), bias.size());
  const std::int64_t rows = x.shape()[0], d = x.shape()[1];
  kernels::at_level<kernels::Rows>(level, [&]<class R>(R) {
    parallel_for(stream.device().team(), rows, kernels::rows_grain(d), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const float* row = x.data() + i * d;
        const double size = static_cast<double>(d), mean = R::sum_of(row, d) / size;
        const auto shift = static_cast<float>(mean);
        // The variance is about the mean itself, not about its float.
        const double off = mean - static_cast<double>(shift);
        const double variance = std::max(0.0, R::sum_of_squares(row, d, shift) / size - off * off);
        const auto scale = static_cast<float>(1 / std::sqrt(variance + static_cast<double>(eps)));
        R::normalize(row, shift, scale, weight.data(), bias.data(), y.data() + i * d, d);
      }
    });
  });
}

}  // namespace troika
