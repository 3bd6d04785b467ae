// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this where its macros are set.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

// What panel_dots.hpp has, with AVX2 alone: the sums of a group are the same whole numbers, and become floats in the
// same order, so the results have the same bits.
namespace troika::kernels::TROIKA_LEVEL {

// largest: of the bytes of a record. vpmaddubsw sums pairs of products in 16 bits, where some pairs of small bytes have
// room before they are widened to 32; one pair of large bytes has not, so these are taken as signed numbers, and x gets
// their signs.
template <bool fine, bool minimum, int largest>
struct PanelDots {
  static constexpr int halves = fine ? 2 : 1, steps = 8 / halves;
  static constexpr bool with_signs = largest > 128;
  static constexpr int pairs = 32767 / (2 * 127 * largest);
  static constexpr int in_16_bits = pairs >= 8 ? steps : pairs >= 4 ? 4 : pairs >= 2 ? 2 : 1;

  // Rows of x at once; more do not fit in 16 registers.
  static constexpr std::int64_t most = 4;
  static constexpr std::int64_t together(std::int64_t left) { return left < most ? left : most; }
  // So few rows meet blocks of one or of several groups that are not unpacked before.
  static constexpr std::int64_t direct(int groups) { return groups == 1 ? most : 1; }
  // Of x, in bytes with scales, for the second-level cache, or nearly.
  static constexpr std::int64_t kept_elements = 512 * 1024;

  // As in panel_dots.hpp.
  static constexpr std::int64_t floats(std::int64_t rows) { return 11 * rows; }
  TROIKA_TARGET static void prepare(const float* x, std::int64_t x_step, std::int64_t present, std::int64_t rows,
                                    std::int64_t groups, int offset, float* to) {
    for (std::int64_t g = 0; g < groups; ++g, x += 32, to += floats(rows)) {
      float* const scales = to + 8 * rows;
      float* const sums = scales + rows;
      if (present < rows) std::memset(to, 0, static_cast<std::size_t>(floats(rows)) * sizeof(float));
      for (std::int64_t i = 0; i < present; ++i) {
        __m256i bytes;
        scales[i] = ByteRounding::group(x + i * x_step, bytes);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8 * i), bytes);
        const __m256i fours = ByteRounding::fours_of_ones(bytes);
        int sum[2] = {four_lanes(_mm256_castsi256_si128(fours)), four_lanes(_mm256_extracti128_si256(fours, 1))};
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
  TROIKA_INLINE int four_lanes(__m128i x) {
    const __m128i two = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  }

  template <int M>
  using Sums = float[M][16];

  // Adds the products of a record with M rows of x.
  template <int M>
  TROIKA_INLINE void add(const float* x, const std::byte* record, Sums<M>& sum) {
    const float* const scale_of_x = x + 8 * M;
    const float* const sums_of_x = scale_of_x + M;
    TROIKA_UNROLL
    for (int h = 0; h < halves; ++h) {
      __m256i dot[M][2];
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) {
        dot[i][0] = dot[i][1] = minimum || with_signs ? _mm256_setzero_si256() : four(sums_of_x + h * M + i);
      }
      if constexpr (with_signs) {
        TROIKA_UNROLL
        for (int q = h * steps; q < (h + 1) * steps; ++q) add_signed<M>(x + q, record + 64 * q, dot);
      } else {
        TROIKA_UNROLL
        for (int q = h * steps; q < (h + 1) * steps; q += in_16_bits) add_small<M>(x + q, record + 64 * q, dot);
      }
      const auto* const scale = reinterpret_cast<const float*>(record + 512 + 64 * h);
      const auto* const less = reinterpret_cast<const float*>(record + 512 + 64 * (halves + h));
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) {
        TROIKA_UNROLL
        for (int side = 0; side < 2; ++side) {
          float* const at = sum[i] + 8 * side;
          __m256 result = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i][side]) * _mm256_broadcast_ss(scale_of_x + i),
                                          _mm256_load_ps(scale + 8 * side), _mm256_load_ps(at));
          if constexpr (minimum) {
            const __m256 sum_of_x = _mm256_broadcast_ss(sums_of_x + h * M + i);
            result = _mm256_fnmadd_ps(sum_of_x, _mm256_load_ps(less + 8 * side), result);
          }
          _mm256_store_ps(at, result);
        }
      }
    }
  }
  // The empty assembly keeps g++ 12 from putting off additions until it has no register left.
  template <int M>
  TROIKA_INLINE void add_small(const float* x, const std::byte* record, __m256i (&dot)[M][2]) {
    __m256i pairs_of[M][2];
    TROIKA_UNROLL
    for (int q = 0; q < in_16_bits; ++q) {
      const __m256i first = bytes_at(record + 64 * q), second = bytes_at(record + 64 * q + 32);
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) {
        const __m256i x_of = four(x + 8 * i + q);
        const __m256i a = _mm256_maddubs_epi16(first, x_of), b = _mm256_maddubs_epi16(second, x_of);
        pairs_of[i][0] = q == 0 ? a : _mm256_add_epi16(pairs_of[i][0], a);
        pairs_of[i][1] = q == 0 ? b : _mm256_add_epi16(pairs_of[i][1], b);
        asm("" : "+x"(pairs_of[i][0]), "+x"(pairs_of[i][1]));
      }
    }
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) widen(pairs_of[i][0], pairs_of[i][1], dot[i]);
  }
  template <int M>
  TROIKA_INLINE void add_signed(const float* x, const std::byte* record, __m256i (&dot)[M][2]) {
    const __m256i top = _mm256_set1_epi8(static_cast<char>(0x80));
    const __m256i first = _mm256_xor_si256(bytes_at(record), top);
    const __m256i second = _mm256_xor_si256(bytes_at(record + 32), top);
    const __m256i first_size = _mm256_abs_epi8(first), second_size = _mm256_abs_epi8(second);
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) {
      const __m256i x_of = four(x + 8 * i);
      widen(_mm256_maddubs_epi16(first_size, _mm256_sign_epi8(x_of, first)),
            _mm256_maddubs_epi16(second_size, _mm256_sign_epi8(x_of, second)), dot[i]);
    }
  }
  TROIKA_INLINE void widen(__m256i first, __m256i second, __m256i (&dot)[2]) {
    const __m256i ones = _mm256_set1_epi16(1);
    dot[0] = _mm256_add_epi32(dot[0], _mm256_madd_epi16(first, ones));
    dot[1] = _mm256_add_epi32(dot[1], _mm256_madd_epi16(second, ones));
    asm("" : "+x"(dot[0]), "+x"(dot[1]));
  }
  TROIKA_INLINE __m256i bytes_at(const std::byte* from) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
  }
  // Four bytes to every lane.
  TROIKA_INLINE __m256i four(const float* from) { return _mm256_castps_si256(_mm256_broadcast_ss(from)); }

  // M rows of x times a panel, added to the sums that are so far: with records, or with the blocks of 16 rows as they
  // lie in memory.
  template <int M>
  TROIKA_TARGET static void multiply(const float* x, const std::byte* records, std::size_t record_bytes,
                                     std::int64_t groups, const PanelPlace& from, const PanelPlace& to) {
    alignas(32) Sums<M> sum;
    start<M>(from, sum);
    for (std::int64_t g = 0; g < groups; ++g, x += floats(M), records += record_bytes) add<M>(x, records, sum);
    finish<M>(sum, to);
  }
  template <int M, WeightType type>
  TROIKA_TARGET static void multiply_blocks(const float* x, const std::byte* data, std::int64_t blocks,
                                            const PanelPlace& from, const PanelPlace& to) {
    using P = Panels<type>;
    constexpr std::int64_t bytes = panel_rows * static_cast<std::int64_t>(layout_of(type).bytes);
    alignas(32) Sums<M> sum;
    start<M>(from, sum);
    for (std::int64_t b = 0; b < blocks; ++b, data += bytes) {
      const PanelBlock<type, true> block{data, panel_rows};
      const auto head = P::head(block);
      TROIKA_UNROLL
      for (std::int64_t line = 0; line < bytes; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(data) + 2048 + line, _MM_HINT_T0);
      }
      TROIKA_UNROLL
      for (int j = 0; j < P::groups; ++j, x += floats(M)) {
        alignas(64) std::byte record[P::record];
        P::group(block, head, j, record);
        add<M>(x, record, sum);
      }
    }
    finish<M>(sum, to);
  }
  template <int M>
  TROIKA_INLINE void start(const PanelPlace& y, Sums<M>& sum) {
    const std::size_t bytes = bytes_of_row(y);
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) {
      if (bytes < sizeof sum[i] || (!y.accumulate && !y.bias)) std::memset(sum[i], 0, sizeof sum[i]);
      if (y.accumulate)
        std::memcpy(sum[i], y.data + i * y.step, bytes);
      else if (y.bias)
        std::memcpy(sum[i], y.bias, bytes);
    }
  }
  template <int M>
  TROIKA_INLINE void finish(const Sums<M>& sum, const PanelPlace& y) {
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) std::memcpy(y.data + i * y.step, sum[i], bytes_of_row(y));
  }
  TROIKA_INLINE std::size_t bytes_of_row(const PanelPlace& y) {  // its columns are the first ones
    return y.columns == 0xffff ? 64 : 4 * static_cast<std::size_t>(__builtin_popcount(y.columns));
  }
};

template <WeightType type>
using DotsOf = PanelDots<Panels<type>::fine, Panels<type>::minimum, largest_panel_byte(type)>;

}  // namespace troika::kernels::TROIKA_LEVEL
#endif
