// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this once for each level.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

namespace troika::kernels {

template <>
struct Dots<CpuLevel::TROIKA_LEVEL> : Vector<CpuLevel::TROIKA_LEVEL> {
  // y(i, j) = x(i, .) w(j, .) for i < M, j < N. x_step, w_step and y_step separate rows.
  template <int M, int N, class W>
  TROIKA_TARGET static void multiply(const float* x, std::int64_t x_step, const W* w, std::int64_t w_step,
                                     std::int64_t k, float* y, std::int64_t y_step, const float* bias) {
    F sum[M][N];
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) {
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) sum[i][j] = zero();
    }
    std::int64_t p = 0;
    for (; p + width <= k; p += width) {
      F wide[N];
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) wide[j] = load(w + j * w_step + p);
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) {
        const F xi = load(x + i * x_step + p);
        TROIKA_UNROLL
        for (int j = 0; j < N; ++j) sum[i][j] = fma(xi, wide[j], sum[i][j]);
      }
    }
    if (p < k) {
      F wide[N];
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) wide[j] = load(w + j * w_step + p, k - p);
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) {
        const F xi = load(x + i * x_step + p, k - p);
        TROIKA_UNROLL
        for (int j = 0; j < N; ++j) sum[i][j] = fma(xi, wide[j], sum[i][j]);
      }
    }
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) {
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) {
        const float total = Vector<CpuLevel::TROIKA_LEVEL>::sum(sum[i][j]);
        y[i * y_step + j] = bias ? total + bias[j] : total;
      }
    }
  }
};

}  // namespace troika::kernels
#endif
