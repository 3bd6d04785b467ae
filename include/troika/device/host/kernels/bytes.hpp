// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this where its macros are set.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

// Products of quantised rows, as files have them, with activations in 8 bits, with AVX2. The sums of a group of 32 are
// exact, and become floats when they are scaled. (Most weights are in panels instead.)
namespace troika::kernels {

struct ByteRounding {
  // 32 floats as bytes from -127 to 127; returns their scale. With a NaN or an infinity among them it is NaN.
  TROIKA_INLINE float group(const float* x, __m256i& bytes) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 value[4], most = _mm256_setzero_ps(), strange = _mm256_setzero_ps();  // the maximum looks away from NaN
    TROIKA_UNROLL
    for (int j = 0; j < 4; ++j) {
      value[j] = _mm256_loadu_ps(x + 8 * j);
      most = _mm256_max_ps(most, _mm256_andnot_ps(sign, value[j]));
      strange += value[j] * 0.0f;
    }
    const __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    const __m128 pair = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
    const float largest = _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
    const bool finite = _mm256_movemask_ps(_mm256_cmp_ps(strange, strange, _CMP_UNORD_Q)) == 0;
    const float scale = !finite ? std::numeric_limits<float>::quiet_NaN() : largest > 1e-36f ? largest / 127.0f : 0.0f;
    const __m256 factor = _mm256_set1_ps(finite && largest > 1e-36f ? 127.0f / largest : 0.0f);
    __m256i whole[4];
    TROIKA_UNROLL
    for (int j = 0; j < 4; ++j) whole[j] = _mm256_cvtps_epi32(value[j] * factor);
    const __m256i packed =
        _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
    bytes = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    return scale;
  }
  // Sums of four neighbours.
  TROIKA_INLINE __m256i fours_of_ones(__m256i bytes) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1));
  }
};

template <WeightType type>
struct ByteDots {
  using Group = Groups<type>;

  // Sums of four products of unsigned with signed bytes, the latter from -127 to 127.
  TROIKA_INLINE __m256i fours(__m256i bytes, __m256i q) {
    const __m256i ones = _mm256_set1_epi16(1);
    if constexpr (Group::offset < 128) {
      return _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, q), ones);
    } else {  // two products of bytes above 127 do not fit in 16 bits
      const __m256i low = _mm256_and_si256(bytes, _mm256_set1_epi8(127));
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 7), _mm256_set1_epi8(1));
      return _mm256_add_epi32(_mm256_madd_epi16(_mm256_maddubs_epi16(low, q), ones),
                              _mm256_slli_epi32(_mm256_madd_epi16(_mm256_maddubs_epi16(high, q), ones), 7));
    }
  }

  // Rows of x in 8 bits, group by group: 32 bytes, then the sums of fours of them, times their scale and what they have
  // to be multiplied with: -offset, or the minimum of a group. The scales of all groups follow. In floats.
  static constexpr std::int64_t size(std::int64_t padded, std::int64_t k) { return padded * (k / 32) * 17; }

  // A group with a NaN or an infinity becomes NaN.
  TROIKA_TARGET static void prepare(const float* x, std::int64_t x_step, std::int64_t rows, std::int64_t padded,
                                    std::int64_t k, float* to) {
    float* scales = to + padded * (k / 32) * 16;
    for (std::int64_t p = 0; p < k; p += 32) {
      for (std::int64_t i = 0; i < padded; ++i, to += 16, ++scales) {
        if (i >= rows) {
          std::memset(to, 0, 64);
          *scales = 0;
        } else {
          *scales = prepare_group(x + i * x_step + p, to);
        }
      }
    }
  }
  TROIKA_INLINE float prepare_group(const float* x, float* to) {
    __m256i bytes;
    const float scale = ByteRounding::group(x, bytes);
    const __m256 sums = _mm256_cvtepi32_ps(ByteRounding::fours_of_ones(bytes));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
    _mm256_storeu_ps(to + 8, sums * (Group::has_minimum ? scale : -scale * Group::offset));
    return scale;
  }

  // y(i, j * apart) = x(i, .) w(j * apart, .) + bias(j * apart) for i < rows <= M, j < columns <= N, with x as prepared
  // for M rows. w_step is in bytes. Each of the N streams goes on in the next row of w, so that what is fetched ahead
  // at the end of a row is needed.
  template <int M, int N>
  TROIKA_TARGET static void multiply(const float* x, std::int64_t rows, const std::byte* w, std::int64_t w_step,
                                     std::int64_t apart, std::int64_t columns, std::int64_t k, float* y,
                                     std::int64_t y_step, const float* bias) {
    constexpr std::size_t block = layout_of(type).bytes, ahead = 1024;
    const float* scales_of_x = x + M * (k / 32) * 16;
    __m256 sum[M][N];
    const std::byte* from[N];
    GroupScales scales[N];
    TROIKA_UNROLL
    for (int j = 0; j < N; ++j) {
      from[j] = w + (j < columns ? j : columns - 1) * apart * w_step;
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) sum[i][j] = _mm256_setzero_ps();
    }
    for (std::int64_t p = 0; p < k; p += layout_of(type).block) {
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) {
        Group::prepare(from[j], scales[j]);
        TROIKA_UNROLL
        for (std::size_t line = 0; line < block; line += 64) {
          _mm_prefetch(reinterpret_cast<const char*>(from[j]) + ahead + line, _MM_HINT_T0);
        }
      }
      TROIKA_UNROLL
      for (int g = 0; g < Group::groups; ++g, x += M * 16, scales_of_x += M) {
        __m256i bytes[N];
        __m256 scale[N], minimum[N] = {};
        TROIKA_UNROLL
        for (int j = 0; j < N; ++j) {
          bytes[j] = Group::bytes(from[j], g);
          scale[j] = Group::scale(from[j], scales[j], g);
          if constexpr (Group::has_minimum) minimum[j] = Group::minimum(from[j], scales[j], g);
        }
        TROIKA_UNROLL
        for (int i = 0; i < M; ++i) {
          const __m256i q = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 16 * i));
          const __m256 sums = _mm256_loadu_ps(x + 16 * i + 8), scale_of_x = _mm256_broadcast_ss(scales_of_x + i);
          TROIKA_UNROLL
          for (int j = 0; j < N; ++j) {
            const __m256 dot = _mm256_cvtepi32_ps(fours(bytes[j], q));
            if constexpr (Group::has_minimum) {
              sum[i][j] = _mm256_fmadd_ps(dot * scale_of_x, scale[j], sum[i][j]);
              sum[i][j] = _mm256_fnmadd_ps(sums, minimum[j], sum[i][j]);
            } else {
              sum[i][j] = _mm256_fmadd_ps(_mm256_fmadd_ps(dot, scale_of_x, sums), scale[j], sum[i][j]);
            }
          }
        }
      }
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) from[j] += block;
    }
    float totals[M][N];
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) {
      TROIKA_UNROLL
      for (int j = 0; j < N; ++j) totals[i][j] = Vector<CpuLevel::avx2>::sum(sum[i][j]);
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) {
        y[i * y_step + j * apart] = bias ? totals[i][j] + bias[j * apart] : totals[i][j];
      }
    }
  }
};

}  // namespace troika::kernels
#endif
