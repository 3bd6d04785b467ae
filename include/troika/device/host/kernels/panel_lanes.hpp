// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this where its macros are set.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

// What unpacking a panel needs of a level: 16 words of 4 bytes each, or 16 floats, one for each row, in one register or
// in two.
namespace troika::kernels::TROIKA_LEVEL {

#if TROIKA_WIDTH == 16
using Words = __m512i;
using Floats = __m512;

struct Lanes {
  // Those of the first `rows` rows; the others are zeros.
  TROIKA_INLINE __mmask16 mask(std::int64_t rows) { return static_cast<__mmask16>((1u << rows) - 1u); }
  TROIKA_INLINE Words words(const std::byte* from, std::int64_t rows) {
    return _mm512_maskz_loadu_epi32(mask(rows), from);
  }
  TROIKA_INLINE Floats halves(const std::byte* from, std::int64_t rows) {
    return _mm512_maskz_cvtph_ps(0xffff, _mm256_maskz_loadu_epi16(mask(rows), from));
  }
  TROIKA_INLINE Words bytes(const std::byte* from, std::int64_t rows) {
    return _mm512_maskz_cvtepu8_epi32(0xffff, _mm_maskz_loadu_epi8(mask(rows), from));
  }
  TROIKA_INLINE void store(std::byte* to, Words x) { _mm512_store_si512(to, x); }
  TROIKA_INLINE void store(std::byte* to, Floats x) { _mm512_store_ps(to, x); }

  TROIKA_INLINE Floats floats(Words whole) { return _mm512_maskz_cvtepi32_ps(0xffff, whole); }
  TROIKA_INLINE Floats low_halves(Words x) {
    return _mm512_maskz_cvtph_ps(0xffff, _mm512_maskz_cvtepi32_epi16(0xffff, x));
  }
  // 2^(exponent - 128), subnormal numbers included (quantised::e8m0_half).
  TROIKA_INLINE Floats half_of_power(Words exponent) {
    const __m512i normal = _mm512_maskz_slli_epi32(0xffff, _mm512_sub_epi32(exponent, _mm512_set1_epi32(1)), 23);
    return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, _mm512_cmplt_epi32_mask(exponent, _mm512_set1_epi32(2)),
                                                      _mm512_set1_epi32(0x00200000), exponent));
  }

  // By words, by halves of words, or by bytes.
  TROIKA_INLINE Words and_words(Words x, int mask) { return _mm512_and_si512(x, _mm512_set1_epi32(mask)); }
  TROIKA_INLINE Words less(Words x, int number) { return _mm512_sub_epi32(x, _mm512_set1_epi32(number)); }
  TROIKA_INLINE Words left(Words x, int bits) {
    return _mm512_maskz_slli_epi32(0xffff, x, static_cast<unsigned>(bits));
  }
  TROIKA_INLINE Words right(Words x, int bits) {
    return _mm512_maskz_srli_epi32(0xffff, x, static_cast<unsigned>(bits));
  }
  TROIKA_INLINE Words highest_byte(Words x) { return _mm512_maskz_srai_epi32(0xffff, x, 24); }  // signed
  TROIKA_INLINE Words halves_left(Words x, int bits) { return _mm512_maskz_slli_epi16(~__mmask32{0}, x, bits); }
  TROIKA_INLINE Words halves_right(Words x, int bits) { return _mm512_maskz_srli_epi16(~__mmask32{0}, x, bits); }
  TROIKA_INLINE Words and_bytes(Words x, int mask) {
    return _mm512_and_si512(x, _mm512_set1_epi8(static_cast<char>(mask)));
  }
  TROIKA_INLINE Words flip_bytes(Words x, int mask) {
    return _mm512_xor_si512(x, _mm512_set1_epi8(static_cast<char>(mask)));
  }
  TROIKA_INLINE Words either(Words a, Words b) { return _mm512_or_si512(a, b); }
  TROIKA_INLINE Words lookup(Words index, __m128i table) {
    return _mm512_shuffle_epi8(_mm512_maskz_broadcast_i32x4(0xffff, table), index);
  }
  // Byte i of each word in all four of its bytes.
  TROIKA_INLINE Words spread(Words x, int i) {
    return _mm512_shuffle_epi8(x, _mm512_add_epi8(_mm512_set1_epi8(static_cast<char>(i)),
                                                  _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0x00000000)));
  }
  // Adds `value` to the bytes for which a bit of `bits` is set; `one_of` has one bit for each of the four bytes.
  TROIKA_INLINE Words add_where(Words bytes, Words bits, unsigned one_of, int value) {
    const auto set = _mm512_test_epi8_mask(bits, _mm512_set1_epi32(static_cast<int>(one_of)));
    return _mm512_mask_add_epi8(bytes, set, bytes, _mm512_set1_epi8(static_cast<char>(value)));
  }
};
#else
struct Words {
  __m256i first, second;  // of rows 0 to 7 and 8 to 15
};
struct Floats {
  __m256 first, second;
  __attribute__((always_inline)) TROIKA_TARGET friend inline Floats operator*(Floats a, Floats b) {
    return {a.first * b.first, a.second * b.second};
  }
  __attribute__((always_inline)) TROIKA_TARGET friend inline Floats operator-(Floats a) {
    return {-a.first, -a.second};
  }
};

struct Lanes {
  // Those of the first `rows` rows; the others are zeros.
  TROIKA_INLINE Words words(const std::byte* from, std::int64_t rows) {
    const auto* const at = reinterpret_cast<const int*>(from);
    if (rows == 16) return {load(from), load(from + 32)};
    return {_mm256_maskload_epi32(at, below(rows)), _mm256_maskload_epi32(at + 8, below(rows - 8))};
  }
  TROIKA_INLINE __m256i below(std::int64_t rows) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(rows)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  TROIKA_INLINE Floats halves(const std::byte* from, std::int64_t rows) {
    alignas(16) std::byte some[32] = {};
    if (rows < 16) from = static_cast<const std::byte*>(std::memcpy(some, from, static_cast<std::size_t>(2 * rows)));
    return {_mm256_cvtph_ps(load_128(from)), _mm256_cvtph_ps(load_128(from + 16))};
  }
  TROIKA_INLINE Words bytes(const std::byte* from, std::int64_t rows) {
    alignas(16) std::byte some[16] = {};
    if (rows < 16) from = static_cast<const std::byte*>(std::memcpy(some, from, static_cast<std::size_t>(rows)));
    const __m128i all = load_128(from);
    return {_mm256_cvtepu8_epi32(all), _mm256_cvtepu8_epi32(_mm_srli_si128(all, 8))};
  }
  TROIKA_INLINE __m256i load(const std::byte* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  TROIKA_INLINE __m128i load_128(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  TROIKA_INLINE void store(std::byte* to, Words x) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), x.first);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to) + 1, x.second);
  }
  TROIKA_INLINE void store(std::byte* to, Floats x) {
    _mm256_store_ps(reinterpret_cast<float*>(to), x.first);
    _mm256_store_ps(reinterpret_cast<float*>(to) + 8, x.second);
  }

  TROIKA_INLINE Floats floats(Words whole) {
    return {_mm256_cvtepi32_ps(whole.first), _mm256_cvtepi32_ps(whole.second)};
  }
  TROIKA_INLINE Floats low_halves(Words x) { return {low_halves(x.first), low_halves(x.second)}; }
  TROIKA_INLINE __m256 low_halves(__m256i x) {
    const __m256i low = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08)));
  }
  // 2^(exponent - 128), subnormal numbers included (quantised::e8m0_half).
  TROIKA_INLINE Floats half_of_power(Words exponent) {
    return {half_of_power(exponent.first), half_of_power(exponent.second)};
  }
  TROIKA_INLINE __m256 half_of_power(__m256i exponent) {
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(exponent, _mm256_set1_epi32(1)), 23);
    const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), exponent);
    const __m256i small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), exponent);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, small));
  }

  // By words, by halves of words, or by bytes.
  TROIKA_INLINE Words and_words(Words x, int mask) { return and_all(x, _mm256_set1_epi32(mask)); }
  TROIKA_INLINE Words less(Words x, int number) {
    const __m256i all = _mm256_set1_epi32(number);
    return {_mm256_sub_epi32(x.first, all), _mm256_sub_epi32(x.second, all)};
  }
  TROIKA_INLINE Words left(Words x, int bits) {
    return {_mm256_slli_epi32(x.first, bits), _mm256_slli_epi32(x.second, bits)};
  }
  TROIKA_INLINE Words right(Words x, int bits) {
    return {_mm256_srli_epi32(x.first, bits), _mm256_srli_epi32(x.second, bits)};
  }
  TROIKA_INLINE Words highest_byte(Words x) {  // signed
    return {_mm256_srai_epi32(x.first, 24), _mm256_srai_epi32(x.second, 24)};
  }
  TROIKA_INLINE Words halves_left(Words x, int bits) {
    return {_mm256_slli_epi16(x.first, bits), _mm256_slli_epi16(x.second, bits)};
  }
  TROIKA_INLINE Words halves_right(Words x, int bits) {
    return {_mm256_srli_epi16(x.first, bits), _mm256_srli_epi16(x.second, bits)};
  }
  TROIKA_INLINE Words and_bytes(Words x, int mask) { return and_all(x, _mm256_set1_epi8(static_cast<char>(mask))); }
  TROIKA_INLINE Words and_all(Words x, __m256i mask) {
    return {_mm256_and_si256(x.first, mask), _mm256_and_si256(x.second, mask)};
  }
  TROIKA_INLINE Words flip_bytes(Words x, int mask) {
    const __m256i all = _mm256_set1_epi8(static_cast<char>(mask));
    return {_mm256_xor_si256(x.first, all), _mm256_xor_si256(x.second, all)};
  }
  TROIKA_INLINE Words either(Words a, Words b) {
    return {_mm256_or_si256(a.first, b.first), _mm256_or_si256(a.second, b.second)};
  }
  TROIKA_INLINE Words lookup(Words index, __m128i table) {
    const __m256i both = _mm256_broadcastsi128_si256(table);
    return {_mm256_shuffle_epi8(both, index.first), _mm256_shuffle_epi8(both, index.second)};
  }
  // Byte i of each word in all four of its bytes.
  TROIKA_INLINE Words spread(Words x, int i) {
    const __m256i from =
        _mm256_add_epi8(_mm256_set1_epi8(static_cast<char>(i)),
                        _mm256_broadcastsi128_si256(_mm_setr_epi32(0x00000000, 0x04040404, 0x08080808, 0x0c0c0c0c)));
    return {_mm256_shuffle_epi8(x.first, from), _mm256_shuffle_epi8(x.second, from)};
  }
  // Adds `value` to the bytes for which a bit of `bits` is set; `one_of` has one bit for each of the four bytes.
  TROIKA_INLINE Words add_where(Words bytes, Words bits, unsigned one_of, int value) {
    const __m256i asked = _mm256_set1_epi32(static_cast<int>(one_of));
    const __m256i added = _mm256_set1_epi8(static_cast<char>(value));
    return {add_where(bytes.first, bits.first, asked, added), add_where(bytes.second, bits.second, asked, added)};
  }
  TROIKA_INLINE __m256i add_where(__m256i bytes, __m256i bits, __m256i asked, __m256i added) {
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, asked), asked);
    return _mm256_add_epi8(bytes, _mm256_and_si256(set, added));
  }
};
#endif

}  // namespace troika::kernels::TROIKA_LEVEL
#endif
