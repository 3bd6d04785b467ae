// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this where its macros are set.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

// Panels of quantised rows (device/host/panels.hpp) in registers: a lane is a row of the weight, so that four bytes of
// each of 16 rows meet four bytes of an activation in one instruction, and no sum has to be taken across a register.
// Blocks are first unpacked to records in the first-level cache, whatever their type; one kernel multiplies records.
//
// A record is a group of 32 elements of each of 16 rows: 8 vectors of bytes, vector q with elements 4 q to 4 q + 3;
// then the scales of the rows, one vector, or two where 16 elements share a scale; then the minima, likewise. Element i
// is scale * (byte i - offset) - minimum.
namespace troika::kernels {

// The words and small fields of one block of each row of a panel.
template <WeightType type, bool full>
struct PanelBlock {
  static constexpr PanelFields fields = panel_fields(type);

  const std::byte* data;
  std::int64_t rows;  // 1 to 16; 16 where `full`

  TROIKA_INLINE std::int64_t present(PanelBlock b) { return full ? 16 : b.rows; }
  TROIKA_INLINE __mmask16 mask(PanelBlock b) { return static_cast<__mmask16>((1u << present(b)) - 1u); }
  TROIKA_INLINE __m512i word(PanelBlock b, std::int64_t i) {
    const std::byte* const at = b.data + present(b) * (fields.small_bytes + 4 * i);
    return _mm512_maskz_loadu_epi32(mask(b), at);
  }
  // The small field, as a half or as an exponent of 8 bits.
  TROIKA_INLINE __m512 half(PanelBlock b) {
    return _mm512_maskz_cvtph_ps(0xffff, _mm256_maskz_loadu_epi16(mask(b), b.data));
  }
  TROIKA_INLINE __m512 exponent(PanelBlock b) {  // quantised::e8m0_half
    const __m512i e = _mm512_maskz_cvtepu8_epi32(0xffff, _mm_maskz_loadu_epi8(mask(b), b.data));
    const __m512i normal = _mm512_maskz_slli_epi32(0xffff, _mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)),
                                                      _mm512_set1_epi32(0x00200000), e));
  }
  // The two halves of word i.
  TROIKA_INLINE __m512 low_half(__m512i word) {
    return _mm512_maskz_cvtph_ps(0xffff, _mm512_maskz_cvtepi32_epi16(0xffff, word));
  }
  TROIKA_INLINE __m512 high_half(__m512i word) { return low_half(_mm512_maskz_srli_epi32(0xffff, word, 16)); }
};

// What unpacking is made of.
struct PanelParts {
  TROIKA_INLINE void put(std::byte* record, int vector, __m512i bytes) {
    _mm512_store_si512(record + 64 * vector, bytes);
  }
  TROIKA_INLINE void put(std::byte* record, int vector, __m512 floats) {
    _mm512_store_ps(record + 64 * vector, floats);
  }
  TROIKA_INLINE __m512i field(__m512i word, int shift, int mask) {  // of each byte
    if (shift) word = _mm512_maskz_srli_epi16(~__mmask32{0}, word, shift);
    return _mm512_and_si512(word, _mm512_set1_epi8(static_cast<char>(mask)));
  }
  TROIKA_INLINE __m512i number(__m512i word, int shift, int mask) {  // of each word
    if (shift) word = _mm512_maskz_srli_epi32(0xffff, word, static_cast<unsigned>(shift));
    return _mm512_and_si512(word, _mm512_set1_epi32(mask));
  }
  // Adds `value` to the bytes for which `bit` of the byte of `word` is set.
  TROIKA_INLINE __m512i with_bit(__m512i bytes, __m512i word, int bit, int value) {
    const auto set = _mm512_test_epi8_mask(word, _mm512_set1_epi8(static_cast<char>(1 << bit)));
    return _mm512_mask_add_epi8(bytes, set, bytes, _mm512_set1_epi8(static_cast<char>(value)));
  }
  // The same with bits 4 q to 4 q + 3 of each word, for its four bytes.
  TROIKA_INLINE __m512i with_fifths(__m512i bytes, __m512i word, int q) {
    const __m512i spread =
        _mm512_shuffle_epi8(word, _mm512_add_epi8(_mm512_set1_epi8(static_cast<char>(q / 2)),
                                                  _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0x00000000)));
    const auto set =
        _mm512_test_epi8_mask(spread, _mm512_set1_epi32(static_cast<int>(q % 2 ? 0x80402010u : 0x08040201u)));
    return _mm512_mask_add_epi8(bytes, set, bytes, _mm512_set1_epi8(16));
  }
  TROIKA_INLINE __m512i lookup(__m512i index, __m128i table) {
    return _mm512_shuffle_epi8(_mm512_maskz_broadcast_i32x4(0xffff, table), index);
  }
  TROIKA_INLINE __m512 floats(__m512i whole) { return _mm512_maskz_cvtepi32_ps(0xffff, whole); }
  // 32 elements in the nibbles of words [first, first + 4): the low ones first.
  template <class B>
  TROIKA_INLINE void nibbles(B block, int first, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 4; ++q) {
      const __m512i word = B::word(block, first + q);
      put(record, q, field(word, 0, 15));
      put(record, q + 4, field(word, 4, 15));
    }
  }
  // The same with the fifth bits of `fifths`; and as numbers of a table.
  template <class B>
  TROIKA_INLINE void nibbles(B block, int first, __m512i fifths, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 4; ++q) {
      const __m512i word = B::word(block, first + q);
      put(record, q, with_fifths(field(word, 0, 15), fifths, q));
      put(record, q + 4, with_fifths(field(word, 4, 15), fifths, q + 4));
    }
  }
  template <class B>
  TROIKA_INLINE void nibbles(B block, int first, __m128i table, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 4; ++q) {
      const __m512i word = B::word(block, first + q);
      put(record, q, lookup(field(word, 0, 15), table));
      put(record, q + 4, lookup(field(word, 4, 15), table));
    }
  }
  // Scale and minimum j of the 8 of 6 bits in words 1 to 3 (quantised::q4_k_scale).
  template <class B>
  TROIKA_INLINE void put_six_bits(B block, __m512 d, __m512 m, int j, std::byte* record, int scales, int minima) {
    put(record, scales, floats(six_bits(B::word(block, 1), B::word(block, 3), j, 0)) * d);
    put(record, minima, floats(six_bits(B::word(block, 2), B::word(block, 3), j, 4)) * m);
  }
  TROIKA_INLINE __m512i six_bits(__m512i own, __m512i shared, int j, int shift) {
    if (j < 4) return number(own, 8 * j, 63);
    return _mm512_or_si512(number(shared, 8 * (j - 4) + shift, 15),
                           _mm512_maskz_slli_epi32(0xffff, number(own, 8 * (j - 4) + 6, 3), 4));
  }
};

// head(block): what its groups share. group(block, head, j, record): group j of the block. After inlining with a
// constant j, a record that is read at once stays in registers.
template <WeightType type>
struct Panels;

template <int bias, bool with_minimum, bool two_scales, int count>
struct PanelShape : PanelParts {
  static constexpr int offset = bias, groups = count;
  static constexpr bool minimum = with_minimum, fine = two_scales;
  static constexpr int scales = 8, minima = two_scales ? 10 : 9;  // vectors of a record where these begin
  static constexpr std::size_t record = 64 * static_cast<std::size_t>(minima + (with_minimum ? minima - scales : 0));

  struct Head {};
  template <class B>
  TROIKA_INLINE Head head(B) {
    return {};
  }
};
// Blocks of 256 with a half, or with two.
template <int bias, bool two_scales>
struct LargePanel : PanelShape<bias, false, two_scales, 8> {
  struct Head {
    __m512 d;
  };
  template <class B>
  TROIKA_INLINE Head head(B block) {
    return {B::half(block)};
  }
};
template <bool two_scales>
struct LargePanelWithMinimum : PanelShape<0, true, two_scales, 8> {
  struct Head {
    __m512 d, m;
  };
  template <class B>
  TROIKA_INLINE Head head(B block) {
    const __m512i both = B::word(block, 0);
    return {B::low_half(both), B::high_half(both)};
  }
};

template <>
struct Panels<WeightType::q4_0> : PanelShape<8, false, false, 1> {
  template <class B>
  TROIKA_INLINE void group(B block, Head, int, std::byte* record) {
    nibbles(block, 0, record);
    put(record, scales, B::half(block));
  }
};
template <>
struct Panels<WeightType::q4_1> : PanelShape<0, true, false, 1> {
  template <class B>
  TROIKA_INLINE void group(B block, Head, int, std::byte* record) {
    const __m512i both = B::word(block, 0);
    nibbles(block, 1, record);
    put(record, scales, B::low_half(both));
    put(record, minima, -B::high_half(both));
  }
};
template <>
struct Panels<WeightType::q5_0> : PanelShape<16, false, false, 1> {
  template <class B>
  TROIKA_INLINE void group(B block, Head, int, std::byte* record) {
    const __m512i fifths = B::word(block, 0);
    nibbles(block, 1, fifths, record);
    put(record, scales, B::half(block));
  }
};
template <>
struct Panels<WeightType::q5_1> : PanelShape<0, true, false, 1> {
  template <class B>
  TROIKA_INLINE void group(B block, Head, int, std::byte* record) {
    const __m512i both = B::word(block, 0), fifths = B::word(block, 1);
    nibbles(block, 2, fifths, record);
    put(record, scales, B::low_half(both));
    put(record, minima, -B::high_half(both));
  }
};
template <>
struct Panels<WeightType::q8_0> : PanelShape<128, false, false, 1> {
  template <class B>
  TROIKA_INLINE void group(B block, Head, int, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 8; ++q) {
      put(record, q, _mm512_xor_si512(B::word(block, q), _mm512_set1_epi8(static_cast<char>(0x80))));
    }
    put(record, scales, B::half(block));
  }
};
template <>
struct Panels<WeightType::iq4_nl> : PanelShape<128, false, false, 1> {
  template <class B>
  TROIKA_INLINE void group(B block, Head, int, std::byte* record) {  // quantised::iq4_nl_values + 128
    const __m128i table = _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15);
    nibbles(block, 0, table, record);
    put(record, scales, B::half(block));
  }
};
template <>
struct Panels<WeightType::mxfp4> : PanelShape<12, false, false, 1> {
  template <class B>
  TROIKA_INLINE void group(B block, Head, int, std::byte* record) {  // quantised::mxfp4_values + 12
    const __m128i table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    nibbles(block, 0, table, record);
    put(record, scales, B::exponent(block));
  }
};
template <>
struct Panels<WeightType::q2_k> : LargePanelWithMinimum<true> {
  template <class B>
  TROIKA_INLINE void group(B block, Head head, int j, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 8; ++q) put(record, q, field(B::word(block, 5 + j / 4 * 8 + q), j % 4 * 2, 3));
    const __m512i four = B::word(block, 1 + j / 2);
    TROIKA_UNROLL
    for (int h = 0; h < 2; ++h) {
      const __m512i both = number(four, 16 * (j % 2) + 8 * h, 255);
      put(record, scales + h, floats(number(both, 0, 15)) * head.d);
      put(record, minima + h, floats(number(both, 4, 15)) * head.m);
    }
  }
};
template <>
struct Panels<WeightType::q3_k> : LargePanel<4, true> {
  template <class B>
  TROIKA_INLINE void group(B block, Head head, int j, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 8; ++q) {
      const __m512i low = field(B::word(block, 11 + j / 4 * 8 + q), j % 4 * 2, 3);
      put(record, q, with_bit(low, B::word(block, 3 + q), j, 4));
    }
    TROIKA_UNROLL
    for (int h = 0; h < 2; ++h) {  // quantised::q3_k_scale
      const int i = 2 * j + h;
      const __m512i low = number(B::word(block, i % 8 / 4), 8 * (i % 4) + (i >= 8 ? 4 : 0), 15);
      const __m512i high = number(B::word(block, 2), 8 * (i % 4) + 2 * (i / 4), 3);
      const __m512i scale = _mm512_or_si512(low, _mm512_maskz_slli_epi32(0xffff, high, 4));
      put(record, scales + h, floats(_mm512_sub_epi32(scale, _mm512_set1_epi32(32))) * head.d);
    }
  }
};
template <>
struct Panels<WeightType::q4_k> : LargePanelWithMinimum<false> {
  template <class B>
  TROIKA_INLINE void group(B block, Head head, int j, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 8; ++q) put(record, q, field(B::word(block, 4 + j / 2 * 8 + q), j % 2 * 4, 15));
    put_six_bits(block, head.d, head.m, j, record, scales, minima);
  }
};
template <>
struct Panels<WeightType::q5_k> : LargePanelWithMinimum<false> {
  template <class B>
  TROIKA_INLINE void group(B block, Head head, int j, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 8; ++q) {
      const __m512i low = field(B::word(block, 12 + j / 2 * 8 + q), j % 2 * 4, 15);
      put(record, q, with_bit(low, B::word(block, 4 + q), j, 16));
    }
    put_six_bits(block, head.d, head.m, j, record, scales, minima);
  }
};
template <>
struct Panels<WeightType::q6_k> : LargePanel<32, true> {
  template <class B>
  TROIKA_INLINE void group(B block, Head head, int j, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 8; ++q) {
      const __m512i low = field(B::word(block, 12 + j / 4 * 24 + j % 2 * 8 + q), j % 4 / 2 * 4, 15);
      const __m512i high = field(B::word(block, 4 + j / 4 * 24 + q), j % 4 * 2, 3);
      put(record, q, _mm512_or_si512(low, _mm512_maskz_slli_epi16(~__mmask32{0}, high, 4)));
    }
    const __m512i four = B::word(block, j / 2);
    TROIKA_UNROLL
    for (int h = 0; h < 2; ++h) {
      const __m512i byte = _mm512_maskz_slli_epi32(0xffff, four, static_cast<unsigned>(24 - 16 * (j % 2) - 8 * h));
      put(record, scales + h, floats(_mm512_maskz_srai_epi32(0xffff, byte, 24)) * head.d);
    }
  }
};

}  // namespace troika::kernels
#endif
