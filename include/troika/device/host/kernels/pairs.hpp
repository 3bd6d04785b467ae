// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this where its macros are set.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

// Products of bf16 with AVX-512 BF16. One instruction adds two products to each of 16 sums, so a lane is a pair of
// neighbours along k, and an odd k ends in a pair with a zero. Products are exact and sums are float; the instruction
// takes numbers below 2^-126 for 0.
namespace troika::kernels {

struct Pairs : Tiles<CpuLevel::avx512> {
  static constexpr std::int64_t lanes(std::int64_t k) { return (k + 1) / 2; }

  TROIKA_INLINE F dot(F sum, F a, F b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
  TROIKA_INLINE __mmask32 first32(std::int64_t count) {
    return count >= 32 ? ~__mmask32{0} : (__mmask32{1} << count) - 1u;
  }
  // 32 elements as 16 pairs; what lies past `count` is not read and 0.
  TROIKA_INLINE F pairs(const bf16* from) { return (F)_mm512_loadu_si512(from); }
  TROIKA_INLINE F pairs(const bf16* from, std::int64_t count) {
    return (F)_mm512_maskz_loadu_epi16(first32(count), from);
  }
  TROIKA_INLINE F pairs(const float* from) { return round(load(from), load(from + 16)); }
  TROIKA_INLINE F pairs(const float* from, std::int64_t count) {
    return round(count >= 16 ? load(from) : load(from, count), count > 16 ? some(from + 16, count - 16) : zero());
  }
  TROIKA_INLINE F some(const float* from, std::int64_t count) { return count >= 16 ? load(from) : load(from, count); }
  TROIKA_INLINE F round(F low, F high) {
    return (F)_mm512_maskz_cvtne2ps_pbh(~__mmask32{0}, (__m512)high, (__m512)low);
  }
  // 16 elements as 8 pairs.
  typedef float H __attribute__((vector_size(32)));
  TROIKA_INLINE H half_pairs(const bf16* from) { return (H)_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  TROIKA_INLINE H half_pairs(const float* from) { return (H)_mm512_maskz_cvtneps_pbh(all, load(from)); }
  template <class T>
  TROIKA_INLINE H half_pairs(const T* from, std::int64_t count) {
    const F both = pairs(from, count);
    return __builtin_shufflevector(both, both, 0, 1, 2, 3, 4, 5, 6, 7);
  }

  // Tiles<>::multiply_rows with pairs; k is in lanes.
  template <int Rows>
  TROIKA_TARGET static void multiply_rows(std::int64_t count, const float* a, const float* b, std::int64_t k, float* c,
                                          std::int64_t c_step, std::int64_t used, bool accumulate, const float* start) {
    F sum[Rows][2];
    TROIKA_UNROLL
    for (int i = 0; i < Rows; ++i) sum[i][0] = sum[i][1] = zero();
    for (std::int64_t i = 0; i < count; ++i) {
      __builtin_prefetch(c + i * c_step, 1);
      __builtin_prefetch(c + i * c_step + 16, 1);
    }
    for (std::int64_t p = 0; p < k; ++p) {
      const F b0 = load(b), b1 = load(b + width);
      __builtin_prefetch(b + 8 * columns);
      TROIKA_UNROLL
      for (int i = 0; i < Rows; ++i) {
        const F ai = splat(a[i]);
        sum[i][0] = dot(sum[i][0], ai, b0);
        sum[i][1] = dot(sum[i][1], ai, b1);
      }
      a += rows;
      b += columns;
    }
    put<Rows>(sum, count, c, c_step, used, accumulate, start);
  }
  template <int Rows = rows>
  static void multiply(std::int64_t count, const float* a, const float* b, std::int64_t k, float* c,
                       std::int64_t c_step, std::int64_t used, bool accumulate, const float* start) {
    if constexpr (Rows > rows_step) {
      if (count <= Rows - rows_step) {
        return multiply<Rows - rows_step>(count, a, b, k, c, c_step, used, accumulate, start);
      }
    }
    multiply_rows<Rows>(count, a, b, k, c, c_step, used, accumulate, start);
  }

  // Rounds `count` <= 16 rows of k elements to bf16, and turns them: pair p of row i goes to to[p * step + i]. Writes
  // 16 lanes at a time.
  template <class T>
  TROIKA_TARGET static void turn(const T* from, std::int64_t from_step, std::int64_t count, std::int64_t k, float* to,
                                 std::int64_t step) {
    for (std::int64_t p = 0; p < k; p += 32, to += 16 * step) {
      const std::int64_t left = k - p;
      F block[16];
      if (count == 16 && left >= 32) {
        TROIKA_UNROLL
        for (int i = 0; i < 16; ++i) block[i] = pairs(from + i * from_step + p);
      } else {
        for (int i = 0; i < 16; ++i) {
          block[i] = i >= count   ? zero()
                     : left >= 32 ? pairs(from + i * from_step + p)
                                  : pairs(from + i * from_step + p, left);
        }
      }
      transpose(block);
      const std::int64_t end = left < 32 ? lanes(left) : 16;
      for (std::int64_t q = 0; q < end; ++q) store(to + q * step, block[q]);
    }
  }
  // The same for 8 rows: 16 that lie a power of two apart would push each other out of the first-level cache.
  template <class T>
  TROIKA_TARGET static void turn_half(const T* from, std::int64_t from_step, std::int64_t count, std::int64_t k,
                                      float* to, std::int64_t step) {
    using Turner = Vector<CpuLevel::avx2>;
    for (std::int64_t p = 0; p < k; p += 16, to += 8 * step) {
      const std::int64_t left = k - p;
      H block[8];
      if (count == 8 && left >= 16) {
        TROIKA_UNROLL
        for (int i = 0; i < 8; ++i) block[i] = half_pairs(from + i * from_step + p);
      } else {
        for (int i = 0; i < 8; ++i) {
          block[i] = i >= count   ? H{}
                     : left >= 16 ? half_pairs(from + i * from_step + p)
                                  : half_pairs(from + i * from_step + p, left);
        }
      }
      Turner::transpose(block);
      const std::int64_t end = left < 16 ? lanes(left) : 8;
      for (std::int64_t q = 0; q < end; ++q) Turner::store(to + q * step, block[q]);
    }
  }

  // Dots<>: rows of x as bf16, 32 elements of each in turn. In floats, two elements each.
  static constexpr std::int64_t interleaved(std::int64_t padded, std::int64_t k) {
    return padded * ((k + 31) / 32 * 16);
  }
  TROIKA_TARGET static void interleave(const float* x, std::int64_t x_step, std::int64_t count, std::int64_t padded,
                                       std::int64_t k, float* to) {
    for (std::int64_t p = 0; p < k; p += 32) {
      for (std::int64_t i = 0; i < padded; ++i, to += 16) {
        store(to, i < count ? pairs(x + i * x_step + p, k - p < 32 ? k - p : 32) : zero());
      }
    }
  }
  // y(i, j * apart) = x(i, .) w(j * apart, .) + bias(j * apart), as ByteDots<>::multiply.
  template <int M, int N>
  TROIKA_TARGET static void multiply_few(const float* x, std::int64_t count, const bf16* w, std::int64_t w_step,
                                         std::int64_t apart, std::int64_t some_columns, std::int64_t k, float* y,
                                         std::int64_t y_step, const float* bias) {
    F sums[M][N];
    const bf16* from[N];
    TROIKA_UNROLL
    for (int j = 0; j < N; ++j) {
      from[j] = w + (j < some_columns ? j : some_columns - 1) * apart * w_step;
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) sums[i][j] = zero();
    }
    std::int64_t p = 0;
    for (; p + 32 <= k; p += 32, x += M * 16) {
      F wide[N];
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) {
        wide[j] = pairs(from[j] + p);
        _mm_prefetch(reinterpret_cast<const char*>(from[j] + p) + 1024, _MM_HINT_T0);
      }
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) {
        const F xi = load(x + i * 16);
        TROIKA_UNROLL
        for (int j = 0; j < N; ++j) sums[i][j] = dot(sums[i][j], xi, wide[j]);
      }
    }
    if (p < k) {
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) {
        const F last = pairs(from[j] + p, k - p);
        TROIKA_UNROLL
        for (int i = 0; i < M; ++i) sums[i][j] = dot(sums[i][j], load(x + i * 16), last);
      }
    }
    float totals[M][N];
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) {
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) totals[i][j] = sum(sums[i][j]);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t j = 0; j < some_columns; ++j) {
        y[i * y_step + j * apart] = bias ? totals[i][j] + bias[j * apart] : totals[i][j];
      }
    }
  }
};

}  // namespace troika::kernels
#endif
