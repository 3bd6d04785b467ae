// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this once for each level.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

namespace troika::kernels {

template <>
struct Tiles<CpuLevel::TROIKA_LEVEL> : Vector<CpuLevel::TROIKA_LEVEL> {
  // The tile that the registers hold: 24, 12 or 8 vectors of sums, two of b and one of a.
  static constexpr int rows = TROIKA_WIDTH == 16 ? 12 : TROIKA_WIDTH == 8 ? 6 : 4;
  static constexpr int columns = 2 * width;

  // Tiles of fewer rows exist in these steps; rows between are computed and thrown away.
  static constexpr int rows_step = rows == 4 ? 4 : rows / 3;

  // c (count <= Rows, used <= columns) = a b, or c + a b. a(i, p) is at a[i * RowStep + p * Step], b(p, j) at
  // b[p * b_step + j]. All Rows of a and all `columns` of b are read. `start` (columns), or null, is added where c is
  // overwritten.
  template <int Rows, int RowStep, int Step>
  TROIKA_TARGET static void multiply_rows(std::int64_t count, const float* a, const float* b, std::int64_t b_step,
                                          std::int64_t k, float* c, std::int64_t c_step, std::int64_t used,
                                          bool accumulate, const float* start) {
    F sum[Rows][2];
    TROIKA_UNROLL
    for (int i = 0; i < Rows; ++i) sum[i][0] = sum[i][1] = zero();
    for (std::int64_t i = 0; i < count; ++i) {
      __builtin_prefetch(c + i * c_step, 1);
      if (columns > 16) __builtin_prefetch(c + i * c_step + 16, 1);
    }
    for (std::int64_t p = 0; p < k; ++p) {
      const F b0 = load(b), b1 = load(b + width);
      __builtin_prefetch(b + 8 * columns);
      TROIKA_UNROLL
      for (int i = 0; i < Rows; ++i) {
        const F ai = splat(a[i * RowStep]);
        sum[i][0] = fma(ai, b0, sum[i][0]);
        sum[i][1] = fma(ai, b1, sum[i][1]);
      }
      a += Step;
      b += b_step;
    }
    put<Rows>(sum, count, c, c_step, used, accumulate, start);
  }

  // What a tile ends with: the first `count` rows and `used` columns of its sums go to c.
  template <int Rows>
  TROIKA_INLINE void put(const F (&sum)[Rows][2], std::int64_t count, float* c, std::int64_t c_step, std::int64_t used,
                         bool accumulate, const float* start) {
    float tile[Rows][columns];  // so that what follows, which is rare, need not be unrolled
    TROIKA_UNROLL
    for (int i = 0; i < Rows; ++i) {
      store(tile[i], sum[i][0]);
      store(tile[i] + width, sum[i][1]);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      float* const to = c + i * c_step;
      const float* const plus = accumulate ? to : start;
      if (used == columns) {
        F first = load(tile[i]), second = load(tile[i] + width);
        if (plus) {
          first += load(plus);
          second += load(plus + width);
        }
        store(to, first);
        store(to + width, second);
      } else {
        for (std::int64_t j = 0; j < used; ++j) to[j] = plus ? tile[i][j] + plus[j] : tile[i][j];
      }
    }
  }

  // The same for any count up to `rows`.
  template <int RowStep, int Step, int Rows = rows>
  TROIKA_TARGET static void multiply(std::int64_t count, const float* a, const float* b, std::int64_t b_step,
                                     std::int64_t k, float* c, std::int64_t c_step, std::int64_t used, bool accumulate,
                                     const float* start) {
    if constexpr (Rows > rows_step) {
      if (count <= Rows - rows_step) {
        return multiply<RowStep, Step, Rows - rows_step>(count, a, b, b_step, k, c, c_step, used, accumulate, start);
      }
    }
    multiply_rows<Rows, RowStep, Step>(count, a, b, b_step, k, c, c_step, used, accumulate, start);
  }

  // Widens `count` rows of k elements, and turns them, so that to[p * step + i] = from[i][p]. Writes whole vectors: up
  // to `width` - count floats past the last element are overwritten.
  template <class T>
  TROIKA_TARGET static void turn(const T* from, std::int64_t from_step, std::int64_t count, std::int64_t k, float* to,
                                 std::int64_t step) {
    std::int64_t p = 0;
    for (; p < k; p += width) {
      const std::int64_t left = k - p;
      F block[width];
      if (count == width && left >= width) {
        TROIKA_UNROLL
        for (int i = 0; i < width; ++i) block[i] = load(from + i * from_step + p);
      } else {
        for (int i = 0; i < width; ++i) {
          block[i] = i >= count      ? zero()
                     : left >= width ? load(from + i * from_step + p)
                                     : load(from + i * from_step + p, left);
        }
      }
      transpose(block);
      const std::int64_t end = left < width ? left : width;
      if (end == width) {
        TROIKA_UNROLL
        for (int q = 0; q < width; ++q) store(to + (p + q) * step, block[q]);
      } else {
        for (std::int64_t q = 0; q < end; ++q) store(to + (p + q) * step, block[q]);
      }
    }
  }
};

}  // namespace troika::kernels
#endif
