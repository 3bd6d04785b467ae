// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this once for each level.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

namespace troika::kernels {

template <>
struct Vector<CpuLevel::TROIKA_LEVEL> {
  static constexpr int width = TROIKA_WIDTH;
  typedef float F __attribute__((vector_size(4 * TROIKA_WIDTH)));
  typedef std::int32_t I __attribute__((vector_size(4 * TROIKA_WIDTH)));

#if TROIKA_WIDTH == 16
  // Masked forms with a full mask where the plain form of GCC 12 warns about its own uninitialized variable.
  static constexpr __mmask16 all = 0xffff;
  TROIKA_INLINE F splat(float x) { return _mm512_set1_ps(x); }
  TROIKA_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  TROIKA_INLINE F widen(const bf16*, __m256i bits) { return (F)((I)_mm512_maskz_cvtepu16_epi32(all, bits) << 16); }
  TROIKA_INLINE F widen(const f16*, __m256i bits) { return _mm512_maskz_cvtph_ps(all, bits); }
  TROIKA_INLINE F load(const float* from) { return _mm512_loadu_ps(from); }
  template <class T>
  TROIKA_INLINE F load(const T* from) {
    return widen(from, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  TROIKA_INLINE void store(float* to, F x) { _mm512_storeu_ps(to, x); }
  // The first `count` < width floats; the rest is 0.
  TROIKA_INLINE F load(const float* from, std::int64_t count) { return _mm512_maskz_loadu_ps(first(count), from); }
  template <class T>
  TROIKA_INLINE F load(const T* from, std::int64_t count) {
    return widen(from, _mm256_maskz_loadu_epi16(first(count), from));
  }
  TROIKA_INLINE void store(float* to, F x, std::int64_t count) { _mm512_mask_storeu_ps(to, first(count), x); }
  TROIKA_INLINE __mmask16 first(std::int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }
#else
#if TROIKA_WIDTH == 8
  TROIKA_INLINE F splat(float x) { return _mm256_set1_ps(x); }
  TROIKA_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  TROIKA_INLINE F load(const f16* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  TROIKA_INLINE F load(const bf16* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
#else
  TROIKA_INLINE F splat(float x) { return F{x, x, x, x}; }
  TROIKA_INLINE F fma(F a, F b, F c) { return a * b + c; }
  template <class T>
  TROIKA_INLINE F load(const T* from) {
    return F{static_cast<float>(from[0]), static_cast<float>(from[1]), static_cast<float>(from[2]),
             static_cast<float>(from[3])};
  }
#endif
  TROIKA_INLINE F load(const float* from) {
    F x;
    std::memcpy(&x, from, sizeof x);
    return x;
  }
  TROIKA_INLINE void store(float* to, F x) { std::memcpy(to, &x, sizeof x); }
  // The first `count` < width floats; the rest is 0.
  template <class T>
  TROIKA_INLINE F load(const T* from, std::int64_t count) {
    float some[width] = {};
    for (std::int64_t i = 0; i < count; ++i) some[i] = static_cast<float>(from[i]);
    return load(some);
  }
  TROIKA_INLINE void store(float* to, F x, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = x[i];
  }
#endif

  TROIKA_INLINE F zero() { return F{}; }
  TROIKA_INLINE F select(I mask, F yes, F no) { return (F)((mask & (I)yes) | (~mask & (I)no)); }
  // The second where one is NaN.
  TROIKA_INLINE F min(F a, F b) { return select(a < b, a, b); }
  TROIKA_INLINE F max(F a, F b) { return select(a > b, a, b); }
  TROIKA_INLINE F abs(F x) { return (F)((I)x & 0x7fffffff); }
  // x * x - square, where square is x * x as a float: exact.
  TROIKA_INLINE F square_error(F x, F square) {
#if TROIKA_WIDTH == 4  // no fused multiply-add to rely on: in halves of 12 bits (Veltkamp, Dekker)
    const F high = (F)((I)x & ~0xfff), low = x - high;
    return ((high * high - square) + splat(2.0f) * high * low) + low * low;
#else
    return fma(x, x, -square);
#endif
  }
  TROIKA_INLINE bool any(I mask) {
#if TROIKA_WIDTH == 16
    return _mm512_movepi32_mask((__m512i)mask) != 0;
#elif TROIKA_WIDTH == 8
    return _mm256_movemask_ps((__m256)mask) != 0;
#else
    return (mask[0] | mask[1] | mask[2] | mask[3]) != 0;
#endif
  }
  TROIKA_INLINE float sum(F x) {
#if TROIKA_WIDTH == 16
    const __m256 lower = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 half = lower + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
#elif TROIKA_WIDTH == 8
    const __m256 half = x;
#endif
#if TROIKA_WIDTH == 4
    return (x[0] + x[2]) + (x[1] + x[3]);
#else
    const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
#endif
  }
  TROIKA_INLINE float largest(F x) {
    float result = x[0];
    for (int i = 1; i < width; ++i) result = x[i] > result ? x[i] : result;
    return result;
  }

  TROIKA_INLINE double sum_in_double(F x) {
    double total = 0;
    for (int i = 0; i < width; ++i) total += static_cast<double>(x[i]);
    return total;
  }

  // e^x to about 1 ulp, subnormal results included: 2^n times the polynomial of Cephes on the rest.
  TROIKA_INLINE F exp(F x) {
    x = min(splat(89.0f), max(splat(-104.0f), x));  // beyond, the result is infinity or 0; NaN passes
    const F shifted = fma(x, splat(1.44269504f), splat(12582912.0f));  // 1.5 * 2^23: the low bits are the rounded value
    const F n = shifted - splat(12582912.0f);
    const F r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), x));
    F p = fma(splat(1.9875691500e-4f), r, splat(1.3981999507e-3f));
    p = fma(p, r, splat(8.3334519073e-3f));
    p = fma(p, r, splat(4.1665795894e-2f));
    p = fma(p, r, splat(1.6666665459e-1f));
    p = fma(p, r, splat(5.0000001201e-1f));
    p = fma(p, r * r, r) + splat(1.0f);
    const I exponent = (I)shifted - 0x4b400000;
    const I half = exponent >> 1;  // in two steps, as 2^-149 and 2^128 are no normal floats
    return p * (F)((half + 127) << 23) * (F)((exponent - half + 127) << 23);
  }

  // Parts of two vectors: of each lane of 128 bits the low or high floats, or pairs, in turn; the even or odd lanes.
#if TROIKA_WIDTH == 16
  TROIKA_INLINE F low(F a, F b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
  }
  TROIKA_INLINE F high(F a, F b) {
    return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  }
  TROIKA_INLINE F low_pairs(F a, F b) {
    return __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
  }
  TROIKA_INLINE F high_pairs(F a, F b) {
    return __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }
  TROIKA_INLINE F even_lanes(F a, F b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
  }
  TROIKA_INLINE F odd_lanes(F a, F b) {
    return __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }
#elif TROIKA_WIDTH == 8
  TROIKA_INLINE F low(F a, F b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13); }
  TROIKA_INLINE F high(F a, F b) { return __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15); }
  TROIKA_INLINE F low_pairs(F a, F b) { return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13); }
  TROIKA_INLINE F high_pairs(F a, F b) { return __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15); }
  TROIKA_INLINE F even_lanes(F a, F b) { return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11); }
  TROIKA_INLINE F odd_lanes(F a, F b) { return __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15); }
#else
  TROIKA_INLINE F low(F a, F b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
  TROIKA_INLINE F high(F a, F b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
  TROIKA_INLINE F low_pairs(F a, F b) { return __builtin_shufflevector(a, b, 0, 1, 4, 5); }
  TROIKA_INLINE F high_pairs(F a, F b) { return __builtin_shufflevector(a, b, 2, 3, 6, 7); }
#endif
  // Rows become columns: width vectors, in place. First 4 x 4 floats in each lane, then the lanes.
  TROIKA_INLINE void transpose(F (&rows)[width]) {
    F part[width];
    TROIKA_UNROLL
    for (int i = 0; i < width; i += 4) {
      const F a = low(rows[i], rows[i + 1]), b = high(rows[i], rows[i + 1]);
      const F c = low(rows[i + 2], rows[i + 3]), d = high(rows[i + 2], rows[i + 3]);
      part[i] = low_pairs(a, c);
      part[i + 1] = high_pairs(a, c);
      part[i + 2] = low_pairs(b, d);
      part[i + 3] = high_pairs(b, d);
    }
    TROIKA_UNROLL
    for (int i = 0; i < 4; ++i) {
#if TROIKA_WIDTH == 16
      const F a = even_lanes(part[i], part[i + 4]), b = odd_lanes(part[i], part[i + 4]);
      const F c = even_lanes(part[i + 8], part[i + 12]), d = odd_lanes(part[i + 8], part[i + 12]);
      rows[i] = even_lanes(a, c);
      rows[i + 4] = even_lanes(b, d);
      rows[i + 8] = odd_lanes(a, c);
      rows[i + 12] = odd_lanes(b, d);
#elif TROIKA_WIDTH == 8
      rows[i] = even_lanes(part[i], part[i + 4]);
      rows[i + 4] = odd_lanes(part[i], part[i + 4]);
#else
      rows[i] = part[i];
#endif
    }
  }
};

}  // namespace troika::kernels
#endif
