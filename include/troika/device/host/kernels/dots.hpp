// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this once for each level.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

namespace troika::kernels {

template <>
struct Dots<CpuLevel::TROIKA_LEVEL> : Vector<CpuLevel::TROIKA_LEVEL> {
  // Of M rows of x (k), one vector of each in turn, zeros at the end: then they are one stream for the core to fetch, where
  // rows a power of two apart would push each other out of the first-level cache. to (interleaved(M, k)).
  static constexpr std::int64_t interleaved(std::int64_t rows, std::int64_t k) {
    return rows * ((k + width - 1) / width * width);
  }
  static void interleave(const float* x, std::int64_t x_step, std::int64_t rows, std::int64_t k, float* to) {
    for (std::int64_t p = 0; p < k; p += width) {
      const std::int64_t some = k - p < width ? k - p : width;
      for (std::int64_t i = 0; i < rows; ++i, to += width) {
        for (std::int64_t q = 0; q < width; ++q) to[q] = q < some ? x[i * x_step + p + q] : 0.0f;
      }
    }
  }

  // y(i, j) = x(i, .) w(j, .) + bias(j) for i < M, j < N, with x interleaved. w_step and y_step separate rows.
  template <int M, int N, class W>
  TROIKA_TARGET static void multiply(const float* x, const W* w, std::int64_t w_step, std::int64_t k, float* y,
                                     std::int64_t y_step, const float* bias) {
    F sum[M][N];
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) {
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) sum[i][j] = zero();
    }
    std::int64_t p = 0;
    for (; p + width <= k; p += width, x += M * width) {
      F wide[N];
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) wide[j] = load(w + j * w_step + p);
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) {
        const F xi = load(x + i * width);
        TROIKA_UNROLL
        for (int j = 0; j < N; ++j) sum[i][j] = fma(xi, wide[j], sum[i][j]);
      }
    }
    if (p < k) {
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) {
        const F last = load(w + j * w_step + p, k - p);
        TROIKA_UNROLL
        for (int i = 0; i < M; ++i) sum[i][j] = fma(load(x + i * width), last, sum[i][j]);
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
