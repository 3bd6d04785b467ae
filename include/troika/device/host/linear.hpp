// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <troika/core/dtype.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>

namespace troika {

// What a weight may be stored as; it is widened to float where it is used.
template <class W>
concept WeightElement = std::same_as<std::remove_const_t<W>, float> || std::same_as<std::remove_const_t<W>, f16> ||
                        std::same_as<std::remove_const_t<W>, bf16>;

// y = x wT + bias, with x (m, k), w (n, k) as Hugging Face stores it (out, in), bias (n) or null, y (m, n). Sums in float.
// y must not overlap x.
template <WeightElement W>
void linear(HostStream& stream, View<const float> x, View<W> w, View<float> y, const float* bias = nullptr,
            CpuLevel level = cpu_level()) {
  expects(x.shape().dims() == 2 && w.shape().dims() == 2 && y.shape().dims() == 2 && x.shape()[1] == w.shape()[1] &&
              y.shape()[0] == x.shape()[0] && y.shape()[1] == w.shape()[0],
          [&] {
            return "linear takes x (m, k), w (n, k), y (m, n), not " + x.shape().to_string() + ", " +
                   w.shape().to_string() + ", " + y.shape().to_string();
          });
  (void)level;
  const std::int64_t m = x.shape()[0], n = w.shape()[0], k = w.shape()[1];
  parallel_for(stream.device().team(), n, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = begin; j < end; ++j) {
        float sum = 0;
        for (std::int64_t p = 0; p < k; ++p) sum += x[i * k + p] * static_cast<float>(w[j * k + p]);
        y[i * n + j] = bias ? sum + bias[j] : sum;
      }
    }
  });
}

}  // namespace troika
