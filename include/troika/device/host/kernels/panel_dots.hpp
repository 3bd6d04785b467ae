// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this where its macros are set.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

namespace troika::kernels::TROIKA_LEVEL {

// Some rows of x, rounded to 8 bits in groups of 32 that share a scale, times records.
template <bool fine, bool minimum>
struct PanelDots {
  using Wide = Vector<CpuLevel::avx512>;
  using F = Wide::F;

  // Rows of x at once; how many of those that are left are: kernels exist for 1, 2, 3, 4, 6 and 8.
  static constexpr std::int64_t most = 8;
  static constexpr std::int64_t together(std::int64_t left) {
    return left >= 8 ? 8 : left == 7 ? 4 : left == 5 ? 3 : left;
  }
  // So few rows meet blocks of one or of several groups that are not unpacked before.
  static constexpr std::int64_t direct(int groups) { return groups == 1 ? 32 : 16; }
  // Of x, in bytes with scales, for the second-level cache, or nearly.
  static constexpr std::int64_t kept_elements = 1024 * 1024;

  // Group by group: 32 bytes of each of the M rows; their scales; and for each half of the group what offset or minimum
  // have to be multiplied with: the sum of the bytes times -offset, an integer, or times the scale. In floats.
  static constexpr std::int64_t floats(std::int64_t rows) { return 11 * rows; }

  // A group with a NaN or an infinity becomes NaN. The first `present` rows are there; the others become zeros.
  TROIKA_TARGET static void prepare(const float* x, std::int64_t x_step, std::int64_t present, std::int64_t rows,
                                    std::int64_t groups, int offset, float* to) {
    for (std::int64_t g = 0; g < groups; ++g, x += 32, to += floats(rows)) {
      float* const scales = to + 8 * rows;
      float* const sums = scales + rows;
      if (present < rows) std::memset(to, 0, static_cast<std::size_t>(floats(rows)) * sizeof(float));
      for (std::int64_t i = 0; i < present; ++i) {
        const __m512 low = _mm512_loadu_ps(x + i * x_step), high = _mm512_loadu_ps(x + i * x_step + 16);
        const __m512 strange = low * 0.0f + high * 0.0f;  // the maximum looks away from NaN
        const float largest = Wide::largest(Wide::max(Wide::max(low, -low), Wide::max(high, -high)));
        const bool finite = _mm512_cmp_ps_mask(strange, strange, _CMP_UNORD_Q) == 0, any = largest > 1e-36f;
        scales[i] = !finite ? std::numeric_limits<float>::quiet_NaN() : any ? largest / 127.0f : 0.0f;
        const __m512 factor = _mm512_set1_ps(finite && any ? 127.0f / largest : 0.0f);
        const auto lanes = static_cast<__mmask16>(finite ? 0xffff : 0);
        const __m512i first = _mm512_maskz_cvtps_epi32(lanes, low * factor);
        const __m512i second = _mm512_maskz_cvtps_epi32(lanes, high * factor);
        auto* const bytes = reinterpret_cast<__m128i*>(to + 8 * i);
        _mm_storeu_si128(bytes, _mm512_maskz_cvtepi32_epi8(0xffff, first));
        _mm_storeu_si128(bytes + 1, _mm512_maskz_cvtepi32_epi8(0xffff, second));
        int sum[2] = {whole_sum(first), whole_sum(second)};
        if constexpr (!fine) sum[0] += sum[1];
        TROIKA_UNROLL
        for (int h = 0; h < 2; ++h) {
          const float factored = scales[i] * static_cast<float>(sum[h]);
          const int shifted = -offset * sum[h];
          if constexpr (minimum)
            sums[h * rows + i] = factored;
          else
            std::memcpy(sums + h * rows + i, &shifted, sizeof shifted);
        }
      }
    }
  }

  TROIKA_INLINE int whole_sum(__m512i numbers) {  // of bytes: exact in float
    return static_cast<int>(Wide::sum(_mm512_maskz_cvtepi32_ps(0xffff, numbers)));
  }

  // Adds the products of a record with M rows of x.
  template <int M>
  TROIKA_INLINE void add(const float* x, const std::byte* record, F (&sum)[M]) {
    constexpr int halves = fine ? 2 : 1, steps = 8 / halves;
    const float* const scale_of_x = x + 8 * M;
    const float* const sums_of_x = scale_of_x + M;
    TROIKA_UNROLL
    for (int h = 0; h < halves; ++h) {
      __m512i dot[M];
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) dot[i] = minimum ? _mm512_setzero_si512() : four(sums_of_x + h * M + i);
      TROIKA_UNROLL
      for (int q = h * steps; q < (h + 1) * steps; ++q) {
        const __m512i w = _mm512_load_si512(record + 64 * q);
        TROIKA_UNROLL
        for (int i = 0; i < M; ++i) dot[i] = _mm512_dpbusd_epi32(dot[i], w, four(x + 8 * i + q));
      }
      const F scale = _mm512_load_ps(record + 512 + 64 * h);
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) {
        sum[i] = scaled(sum[i], dot[i], scale_of_x[i], scale);
      }
      if constexpr (minimum) {
        const F less = _mm512_load_ps(record + 512 + 64 * (halves + h));
        TROIKA_UNROLL
        for (int i = 0; i < M; ++i) sum[i] = lessened(sum[i], sums_of_x[h * M + i], less);
      }
    }
  }
  // What a sum becomes by a product of bytes, and by the minimum of their group.
  TROIKA_INLINE F scaled(F sum, __m512i dot, float scale_of_x, F scale) {
    return _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(0xffff, dot) * _mm512_set1_ps(scale_of_x), scale, sum);
  }
  TROIKA_INLINE F lessened(F sum, float sum_of_x, F minimum_of_w) {
    return _mm512_fnmadd_ps(_mm512_set1_ps(sum_of_x), minimum_of_w, sum);
  }

  // M rows of x times a panel, added to the sums that are so far: with records, or with the blocks of 16 rows as they
  // lie in memory.
  template <int M>
  TROIKA_TARGET static void multiply(const float* x, const std::byte* records, std::size_t record_bytes,
                                     std::int64_t groups, const PanelPlace& from, const PanelPlace& to) {
    F sum[M];
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) sum[i] = start(from, i);
    for (std::int64_t g = 0; g < groups; ++g, x += floats(M), records += record_bytes) add<M>(x, records, sum);
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) _mm512_mask_storeu_ps(to.data + i * to.step, to.columns, sum[i]);
  }
  template <int M, WeightType type>
  TROIKA_TARGET static void multiply_blocks(const float* x, const std::byte* data, std::int64_t blocks,
                                            const PanelPlace& from, const PanelPlace& to) {
    using P = Panels<type>;
    constexpr std::int64_t bytes = panel_rows * static_cast<std::int64_t>(layout_of(type).bytes);
    F sum[M];
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) sum[i] = start(from, i);
    for (std::int64_t b = 0; b < blocks; ++b, data += bytes) {
      const PanelBlock<type, true> block{data, panel_rows};
      const auto head = P::head(block);
      if constexpr (M > 4 && P::groups == 1) {  // the processor fetches ahead by itself, but not enough for these
        TROIKA_UNROLL
        for (std::int64_t line = 0; line < bytes; line += 64) {
          _mm_prefetch(reinterpret_cast<const char*>(data) + 3072 + line, _MM_HINT_T0);
        }
      }
      TROIKA_UNROLL
      for (int j = 0; j < P::groups; ++j, x += floats(M)) {
        alignas(64) std::byte record[P::record];
        P::group(block, head, j, record);
        add<M>(x, record, sum);
      }
    }
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) _mm512_mask_storeu_ps(to.data + i * to.step, to.columns, sum[i]);
  }
  TROIKA_INLINE F start(const PanelPlace& y, int row) {
    return y.accumulate ? _mm512_maskz_loadu_ps(y.columns, y.data + row * y.step)
           : y.bias     ? _mm512_maskz_loadu_ps(y.columns, y.bias)
                        : _mm512_setzero_ps();
  }
  // Four bytes to every lane.
  TROIKA_INLINE __m512i four(const float* from) {
    int bits;
    std::memcpy(&bits, from, sizeof bits);
    return _mm512_set1_epi32(bits);
  }
};

template <WeightType type>
using DotsOf = PanelDots<Panels<type>::fine, Panels<type>::minimum>;

}  // namespace troika::kernels::TROIKA_LEVEL
#endif
