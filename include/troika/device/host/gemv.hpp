// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/kernels.hpp>
#include <troika/device/host/operand.hpp>

namespace troika::kernels {

// The rows of x that are multiplied at once.
template <CpuLevel L>
inline constexpr int rows_at_once = Vector<L>::width == 16 ? 8 : 4;

// Kernels exist for 1, 2, 4 and 8 rows; a row between is padded with zeros.
constexpr std::int64_t padded_rows(std::int64_t m) { return m <= 2 ? m : m <= 4 ? 4 : 8; }

// The rows of w that go with m rows of x: as many as the registers hold sums for.
template <CpuLevel L>
constexpr int weights_at_once(int m) {
  if (Vector<L>::width == 16) return m == 1 ? 8 : m == 2 ? 6 : m == 4 ? 5 : 3;
  return m <= 2 ? 4 : 2;
}

// y(i, j) = x(i, .) w(j, .) + bias(j) for i < m <= rows_at_once and j in [0, n), with x interleaved for padded_rows(m).
// The steps are from row to row.
template <CpuLevel L, class W, int M = rows_at_once<L>>
void multiply_few(std::int64_t m, const float* x, const W* w, std::int64_t w_step, std::int64_t n, std::int64_t k,
                  float* y, std::int64_t y_step, const float* bias) {
  if constexpr (M > 1) {
    if (m <= M / 2) return multiply_few<L, W, M / 2>(m, x, w, w_step, n, k, y, y_step, bias);
  }
  constexpr std::int64_t together = weights_at_once<L>(M);
  for (std::int64_t j = 0; j < n; j += together) {
    Dots<L>::template multiply<M, together>(x, m, w + j * w_step, w_step, std::min(together, n - j), k, y + j, y_step,
                                            bias ? bias + j : bias);
  }
}

// How far apart in w the streams are that one call reads, so that all end at about the same time. Not a power of two:
// their rows would push each other out of the caches.
constexpr std::int64_t rows_apart(std::int64_t n, std::int64_t streams) { return (n + streams - 1) / streams | 1; }

// How some rows meet a matrix: floats with all types.
template <CpuLevel L>
struct FloatDots {
  static constexpr int most = rows_at_once<L>;
  static constexpr std::int64_t limit = 4 * most;  // up to so many rows this is faster than packing w
  static std::int64_t size(std::int64_t padded, std::int64_t k) { return Dots<L>::interleaved(padded, k); }
  static void prepare(const float* x, std::int64_t x_step, std::int64_t rows, std::int64_t padded, std::int64_t k,
                      float* to) {
    Dots<L>::interleave(x, x_step, rows, padded, k, to);
  }
  template <class W>
  static void multiply(std::int64_t m, const float* x, Operand<W> w, std::int64_t n, std::int64_t k, float* y,
                       std::int64_t y_step, const float* bias) {
    multiply_few<L, W>(m, x, w.data, w.row_step, n, k, y, y_step, bias);
  }
};

#if defined(__x86_64__)
// Rows rounded to bf16, with bf16.
struct PairDots {
  static constexpr int most = rows_at_once<CpuLevel::avx512>;
  static constexpr std::int64_t limit = 4 * most;
  static std::int64_t size(std::int64_t padded, std::int64_t k) { return Pairs::interleaved(padded, k); }
  static void prepare(const float* x, std::int64_t x_step, std::int64_t rows, std::int64_t padded, std::int64_t k,
                      float* to) {
    Pairs::interleave(x, x_step, rows, padded, k, to);
  }
  template <int M = most>
  static void multiply(std::int64_t m, const float* x, Operand<bf16> w, std::int64_t n, std::int64_t k, float* y,
                       std::int64_t y_step, const float* bias) {
    if constexpr (M > 1) {
      if (m <= M / 2) return multiply<M / 2>(m, x, w, n, k, y, y_step, bias);
    }
    constexpr std::int64_t together = M <= 2 ? 4 : weights_at_once<CpuLevel::avx512>(M);
    const std::int64_t apart = rows_apart(n, together);
    for (std::int64_t j = 0; j < std::min(apart, n); ++j) {
      Pairs::multiply_few<M, together>(x, m, w.at(j, 0), w.row_step, apart, (n - j + apart - 1) / apart, k, y + j,
                                       y_step, bias ? bias + j : bias);
    }
  }
};
#endif

// The product of some rows with a matrix that is read once from memory and not packed.
template <class Kernel>
struct FewRowsOf {
  static constexpr std::int64_t limit = Kernel::limit;

  static std::int64_t group(std::int64_t m) {
    const std::int64_t groups = (m + Kernel::most - 1) / Kernel::most;
    return (m + groups - 1) / groups;
  }
  // Floats for x.
  static std::int64_t scratch(std::int64_t m, std::int64_t k) {
    const std::int64_t size = group(m);
    return (m + size - 1) / size * Kernel::size(padded_rows(size), k);
  }

  static void prepare(const float* x, std::int64_t x_step, std::int64_t m, std::int64_t k, float* to) {
    const std::int64_t size = group(m);
    for (std::int64_t i = 0; i < m; i += size) {
      const std::int64_t rows = std::min(size, m - i);
      Kernel::prepare(x + i * x_step, x_step, rows, padded_rows(rows), k, to);
      to += Kernel::size(padded_rows(rows), k);
    }
  }

  // y(i, j) = x(i, .) w(j, .) + bias(j) for i < m and j in [0, n), with x as prepared.
  template <class Source>
  static void multiply(const float* x, std::int64_t m, Source w, std::int64_t n, std::int64_t k, float* y,
                       std::int64_t y_step, const float* bias) {
    const std::int64_t size = group(m);
    // What one group of rows has read of w, the next finds in the cache.
    const std::int64_t bytes = w.row_bytes();
    const std::int64_t block = size == m ? n : std::max<std::int64_t>(12, 65536 / bytes / 12 * 12);
    for (std::int64_t j = 0; j < n; j += block) {
      const std::int64_t columns = std::min(block, n - j);
      const float* some = x;
      for (std::int64_t i = 0; i < m; i += size) {
        const std::int64_t rows = std::min(size, m - i);
        Kernel::multiply(rows, some, w.part(j, 0), columns, k, y + i * y_step + j, y_step, bias ? bias + j : bias);
        some += Kernel::size(padded_rows(rows), k);
      }
    }
  }
};
template <CpuLevel L>
struct FewRows : FewRowsOf<FloatDots<L>> {};

}  // namespace troika::kernels
