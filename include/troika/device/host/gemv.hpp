// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/kernels.hpp>

namespace troika::kernels {

// Up to so many rows of x, w is read in place and once: packing it would cost more than it gains.
template <CpuLevel L> inline constexpr std::int64_t few_rows = Vector<L>::width == 16 ? 8 : 4;

// How many rows of w go together: as many as the registers hold sums for.
template <CpuLevel L>
constexpr int rows_at_once(int m) {
  if (Vector<L>::width == 16) return m == 1 ? 8 : m == 2 ? 6 : m <= 4 ? 5 : m == 5 ? 4 : 3;
  return m <= 2 ? 4 : m == 3 ? 3 : 2;
}

// y(i, j) = x(i, .) w(j, .) + bias(j) for i < M and j in [0, n). The steps are from row to row.
template <CpuLevel L, int M, class W>
void multiply_rows(const float* x, std::int64_t x_step, const W* w, std::int64_t w_step, std::int64_t n, std::int64_t k,
                   float* y, std::int64_t y_step, const float* bias) {
  constexpr int together = rows_at_once<L>(M);
  std::int64_t j = 0;
  for (; j + together <= n; j += together) {
    Dots<L>::template multiply<M, together>(x, x_step, w + j * w_step, w_step, k, y + j, y_step, bias ? bias + j : bias);
  }
  for (; j < n; ++j) {
    Dots<L>::template multiply<M, 1>(x, x_step, w + j * w_step, w_step, k, y + j, y_step, bias ? bias + j : bias);
  }
}

// The same for 1 <= m <= few_rows.
template <CpuLevel L, class W, int M = static_cast<int>(few_rows<L>)>
void multiply_few(std::int64_t m, const float* x, std::int64_t x_step, const W* w, std::int64_t w_step, std::int64_t n,
                  std::int64_t k, float* y, std::int64_t y_step, const float* bias) {
  if constexpr (M > 1) {
    if (m < M) return multiply_few<L, W, M - 1>(m, x, x_step, w, w_step, n, k, y, y_step, bias);
  }
  multiply_rows<L, M>(x, x_step, w, w_step, n, k, y, y_step, bias);
}

}  // namespace troika::kernels
