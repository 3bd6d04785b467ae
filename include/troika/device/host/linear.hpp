// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include <troika/core/dtype.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/gemm.hpp>
#include <troika/device/host/kernels.hpp>

namespace troika {

namespace kernels {

// Up to so many rows of x, w is read in place and once: packing it would cost more than it gains.
template <CpuLevel L> inline constexpr std::int64_t few_rows = Vector<L>::width == 16 ? 8 : 4;

// How many rows of w go together: as many as the registers hold sums for.
template <CpuLevel L>
constexpr int rows_at_once(int m) {
  if (Vector<L>::width == 16) return m == 1 ? 8 : m == 2 ? 6 : m <= 4 ? 5 : m == 5 ? 4 : 3;
  return m <= 2 ? 4 : m == 3 ? 3 : 2;
}

// y (M, rows [begin, end) of w).
template <CpuLevel L, int M, class W>
void multiply_few(const float* x, std::int64_t x_step, const W* w, std::int64_t k, float* y, std::int64_t y_step,
                  const float* bias, std::int64_t begin, std::int64_t end) {
  constexpr int together = rows_at_once<L>(M);
  std::int64_t j = begin;
  for (; j + together <= end; j += together) {
    Dots<L>::template multiply<M, together>(x, x_step, w + j * k, k, k, y + j, y_step, bias ? bias + j : nullptr);
  }
  for (; j < end; ++j) Dots<L>::template multiply<M, 1>(x, x_step, w + j * k, k, k, y + j, y_step, bias ? bias + j : nullptr);
}

template <CpuLevel L, int M, class W>
void multiply_few(std::int64_t m, const float* x, const W* w, std::int64_t k, float* y, std::int64_t n, const float* bias,
                  std::int64_t begin, std::int64_t end) {
  if constexpr (M > 1) {
    if (m < M) return multiply_few<L, M - 1>(m, x, w, k, y, n, bias, begin, end);
  }
  multiply_few<L, M>(x, k, w, k, y, n, bias, begin, end);
}

}  // namespace kernels

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
      kernels::multiply_few<L, static_cast<int>(few), Stored>(m, x.data(), w.data(), k, y.data(), n, bias, begin, end);
    });
  });
}

}  // namespace troika
