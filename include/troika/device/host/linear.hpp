// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include <troika/core/dtype.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/gemm.hpp>
#include <troika/device/host/gemv.hpp>
#include <troika/device/host/kernels.hpp>

namespace troika {

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
  using Stored = std::remove_const_t<W>;
  const std::int64_t m = x.shape()[0], n = w.shape()[0], k = w.shape()[1];
  if (m == 0 || n == 0) return;
  kernels::at_level<kernels::Dots>(level, [&]<CpuLevel L>(kernels::Dots<L>) {
    constexpr auto few = kernels::few_rows<L>;
    if (m > few) {
      gemm(stream, m, n, k, Operand<float>{x.data(), k}, Operand<Stored>{w.data(), k}, y.data(), n, bias, false, L);
      return;
    }
    const std::int64_t grain = std::max<std::int64_t>(48, (std::int64_t{1} << 16) / std::max<std::int64_t>(k * m, 1));
    parallel_for(stream.device().team(), n, grain, [&](std::int64_t begin, std::int64_t end) {
      kernels::multiply_few<L, Stored>(m, x.data(), k, w.data() + begin * k, k, end - begin, k, y.data() + begin, n,
                                       bias ? bias + begin : bias);
    });
  });
}

}  // namespace troika
