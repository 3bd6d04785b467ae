// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this once for each level.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

namespace troika::kernels {

template <>
struct Dots<CpuLevel::TROIKA_LEVEL> : Vector<CpuLevel::TROIKA_LEVEL> {
  // Rows of x (k), one vector of each in turn, zeros at the end and for rows up to `padded`: then they are one stream
  // for the core to fetch, where rows a power of two apart would push each other out of the first-level cache.
  static constexpr std::int64_t interleaved(std::int64_t padded, std::int64_t k) {
    return padded * ((k + width - 1) / width * width);
  }
  static void interleave(const float* x, std::int64_t x_step, std::int64_t rows, std::int64_t padded, std::int64_t k,
                         float* to) {
    for (std::int64_t p = 0; p < k; p += width) {
      const std::int64_t some = k - p < width ? k - p : width;
      for (std::int64_t i = 0; i < padded; ++i, to += width) {
        for (std::int64_t q = 0; q < width; ++q) to[q] = i < rows && q < some ? x[i * x_step + p + q] : 0.0f;
      }
    }
  }

  // y(i, j) = x(i, .) w(j, .) + bias(j) for i < rows <= M, j < columns <= N, with x interleaved for M rows. w_step and
  // y_step separate rows.
  template <int M, int N, class W>
  TROIKA_TARGET static void multiply(const float* x, std::int64_t rows, const W* w, std::int64_t w_step,
                                     std::int64_t columns, std::int64_t k, float* y, std::int64_t y_step,
                                     const float* bias) {
    F sum[M][N];
    const W* from[N];
    TROIKA_UNROLL
    for (int j = 0; j < N; ++j) {
      from[j] = w + (j < columns ? j : columns - 1) * w_step;
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) sum[i][j] = zero();
    }
    std::int64_t p = 0;
    for (; p + width <= k; p += width, x += M * width) {
      F wide[N];
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) wide[j] = load(from[j] + p);
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
        const F last = load(from[j] + p, k - p);
        TROIKA_UNROLL
        for (int i = 0; i < M; ++i) sum[i][j] = fma(load(x + i * width), last, sum[i][j]);
      }
    }
    float totals[M][N];
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) {
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) totals[i][j] = Vector<CpuLevel::TROIKA_LEVEL>::sum(sum[i][j]);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) y[i * y_step + j] = bias ? totals[i][j] + bias[j] : totals[i][j];
    }
  }
};

}  // namespace troika::kernels
#endif
