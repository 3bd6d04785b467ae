// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this where its macros are set.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

// Panels of quantised rows (device/host/panels.hpp) in registers: a lane is a row of the weight, so that four bytes of
// each row meet four bytes of an activation in one instruction, and no sum has to be taken across a register.
// Blocks are first unpacked to records in the first-level cache, whatever their type; one kernel multiplies records.
//
// A record is a group of 32 elements of each of 16 rows: 8 vectors of bytes, vector q with elements 4 q to 4 q + 3;
// then the scales of the rows, one vector, or two where 16 elements share a scale; then the minima, likewise. Element i
// is scale * (byte i - offset) - minimum.
//
// Each level has its own namespace here, as the same templates are compiled for several.
namespace troika::kernels::TROIKA_LEVEL {

// The words and small fields of one block of each row of a panel.
template <WeightType type, bool full>
struct PanelBlock {
  static constexpr PanelFields fields = panel_fields(type);

  const std::byte* data;
  std::int64_t rows;  // 1 to 16; 16 where `full`

  TROIKA_INLINE std::int64_t present(PanelBlock b) { return full ? 16 : b.rows; }
  TROIKA_INLINE Words word(PanelBlock b, std::int64_t i) {
    return Lanes::words(b.data + present(b) * (fields.small_bytes + 4 * i), present(b));
  }
  // The small field, as a half or as an exponent of 8 bits.
  TROIKA_INLINE Floats half(PanelBlock b) { return Lanes::halves(b.data, present(b)); }
  TROIKA_INLINE Floats exponent(PanelBlock b) { return Lanes::half_of_power(Lanes::bytes(b.data, present(b))); }
  // The two halves of a word.
  TROIKA_INLINE Floats low_half(Words word) { return Lanes::low_halves(word); }
  TROIKA_INLINE Floats high_half(Words word) { return Lanes::low_halves(Lanes::right(word, 16)); }
};

// What unpacking is made of.
struct PanelParts : Lanes {
  template <class Vector>
  TROIKA_INLINE void put(std::byte* record, int at, Vector x) {
    store(record + 64 * at, x);
  }
  TROIKA_INLINE Words field(Words word, int shift, int mask) {  // of each byte
    return and_bytes(shift ? halves_right(word, shift) : word, mask);
  }
  TROIKA_INLINE Words number(Words word, int shift, int mask) {  // of each word
    return and_words(shift ? right(word, shift) : word, mask);
  }
  // Adds `value` to the bytes for which `bit` of the byte of `word` is set.
  TROIKA_INLINE Words with_bit(Words bytes, Words word, int bit, int value) {
    return add_where(bytes, word, 0x01010101u << bit, value);
  }
  // The same with bits 4 q to 4 q + 3 of each word, for its four bytes.
  TROIKA_INLINE Words with_fifths(Words bytes, Words word, int q) {
    return add_where(bytes, spread(word, q / 2), q % 2 ? 0x80402010u : 0x08040201u, 16);
  }
  // 32 elements in the nibbles of words [first, first + 4): the low ones first.
  template <class B>
  TROIKA_INLINE void nibbles(B block, int first, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 4; ++q) {
      const Words word = B::word(block, first + q);
      put(record, q, field(word, 0, 15));
      put(record, q + 4, field(word, 4, 15));
    }
  }
  // The same with the fifth bits of `fifths`; and as numbers of a table.
  template <class B>
  TROIKA_INLINE void nibbles(B block, int first, Words fifths, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 4; ++q) {
      const Words word = B::word(block, first + q);
      put(record, q, with_fifths(field(word, 0, 15), fifths, q));
      put(record, q + 4, with_fifths(field(word, 4, 15), fifths, q + 4));
    }
  }
  template <class B>
  TROIKA_INLINE void nibbles(B block, int first, __m128i table, std::byte* record) {
    TROIKA_UNROLL
    for (int q = 0; q < 4; ++q) {
      const Words word = B::word(block, first + q);
      put(record, q, lookup(field(word, 0, 15), table));
      put(record, q + 4, lookup(field(word, 4, 15), table));
    }
  }
  // Scale and minimum j of the 8 of 6 bits in words 1 to 3 (quantised::q4_k_scale).
  template <class B>
  TROIKA_INLINE void put_six_bits(B block, Floats d, Floats m, int j, std::byte* record, int scales, int minima) {
    put(record, scales, floats(six_bits(B::word(block, 1), B::word(block, 3), j, 0)) * d);
    put(record, minima, floats(six_bits(B::word(block, 2), B::word(block, 3), j, 4)) * m);
  }
  TROIKA_INLINE Words six_bits(Words own, Words shared, int j, int shift) {
    if (j < 4) return number(own, 8 * j, 63);
    return either(number(shared, 8 * (j - 4) + shift, 15), left(number(own, 8 * (j - 4) + 6, 3), 4));
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
    Floats d;
  };
  template <class B>
  TROIKA_INLINE Head head(B block) {
    return {B::half(block)};
  }
};
template <bool two_scales>
struct LargePanelWithMinimum : PanelShape<0, true, two_scales, 8> {
  struct Head {
    Floats d, m;
  };
  template <class B>
  TROIKA_INLINE Head head(B block) {
    const Words both = B::word(block, 0);
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
    const Words both = B::word(block, 0);
    nibbles(block, 1, record);
    put(record, scales, B::low_half(both));
    put(record, minima, -B::high_half(both));
  }
};
template <>
struct Panels<WeightType::q5_0> : PanelShape<16, false, false, 1> {
  template <class B>
  TROIKA_INLINE void group(B block, Head, int, std::byte* record) {
    const Words fifths = B::word(block, 0);
    nibbles(block, 1, fifths, record);
    put(record, scales, B::half(block));
  }
};
template <>
struct Panels<WeightType::q5_1> : PanelShape<0, true, false, 1> {
  template <class B>
  TROIKA_INLINE void group(B block, Head, int, std::byte* record) {
    const Words both = B::word(block, 0), fifths = B::word(block, 1);
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
      put(record, q, flip_bytes(B::word(block, q), 0x80));
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
    const Words four = B::word(block, 1 + j / 2);
    TROIKA_UNROLL
    for (int h = 0; h < 2; ++h) {
      const Words both = number(four, 16 * (j % 2) + 8 * h, 255);
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
      const Words low = field(B::word(block, 11 + j / 4 * 8 + q), j % 4 * 2, 3);
      put(record, q, with_bit(low, B::word(block, 3 + q), j, 4));
    }
    TROIKA_UNROLL
    for (int h = 0; h < 2; ++h) {  // quantised::q3_k_scale
      const int i = 2 * j + h;
      const Words low = number(B::word(block, i % 8 / 4), 8 * (i % 4) + (i >= 8 ? 4 : 0), 15);
      const Words high = number(B::word(block, 2), 8 * (i % 4) + 2 * (i / 4), 3);
      const Words scale = either(low, left(high, 4));
      put(record, scales + h, floats(less(scale, 32)) * head.d);
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
      const Words low = field(B::word(block, 12 + j / 2 * 8 + q), j % 2 * 4, 15);
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
      const Words low = field(B::word(block, 12 + j / 4 * 24 + j % 2 * 8 + q), j % 4 / 2 * 4, 15);
      const Words high = field(B::word(block, 4 + j / 4 * 24 + q), j % 4 * 2, 3);
      put(record, q, either(low, halves_left(high, 4)));
    }
    const Words four = B::word(block, j / 2);
    TROIKA_UNROLL
    for (int h = 0; h < 2; ++h) {
      const Words byte = left(four, 24 - 16 * (j % 2) - 8 * h);
      put(record, scales + h, floats(highest_byte(byte)) * head.d);
    }
  }
};

// `blocks` blocks of each row of a panel, to records.
template <WeightType type, bool full>
TROIKA_TARGET void unpack_panel(const std::byte* data, std::int64_t rows, std::int64_t blocks, std::byte* record) {
  using P = Panels<type>;
  const std::int64_t bytes = rows * static_cast<std::int64_t>(layout_of(type).bytes);
  for (std::int64_t b = 0; b < blocks; ++b, data += bytes) {
    const PanelBlock<type, full> block{data, rows};
    const auto head = P::head(block);
    TROIKA_UNROLL
    for (int j = 0; j < P::groups; ++j, record += P::record) {
#if TROIKA_WIDTH == 8  // a part with each group: all of a block's lines at once are more than can be on their way
      for (std::int64_t line = bytes * j / P::groups / 64 * 64; line < bytes * (j + 1) / P::groups; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(data) + 4096 + line, _MM_HINT_T0);
      }
#endif
      P::group(block, head, j, record);
    }
  }
}

}  // namespace troika::kernels::TROIKA_LEVEL
#endif
