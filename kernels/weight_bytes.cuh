// SPDX-License-Identifier: Apache-2.0
#pragma once

// Quantised weights become signed bytes, 64 at a time: what one lane takes of a piece of a row (rounded.cuh), from shared
// memory, where blocks lie as in files. core/dequantize.hpp is their truth, and says what their bytes mean.

#include <cstdint>

#include <kernels/rounded.cuh>
#include <kernels/weights.cuh>

namespace troika::cuda {

// An element of a type is scale * (byte - offset) - minimum; a group of 32 has one scale, or one for each half.
constexpr int halves_of_group(WeightType type) {
  return type == WeightType::q2_k || type == WeightType::q3_k || type == WeightType::q6_k ? 2 : 1;
}
constexpr int byte_offset(WeightType type) {
  switch (type) {
    case WeightType::q4_0: return 8;
    case WeightType::q5_0: return 16;
    case WeightType::q3_k: return 4;
    case WeightType::q6_k: return 32;
    default: return 0;
  }
}
constexpr bool has_minimum(WeightType type) {
  return type == WeightType::q4_1 || type == WeightType::q5_1 || type == WeightType::q2_k || type == WeightType::q4_k ||
         type == WeightType::q5_k;
}
constexpr bool groups_are_crossed(WeightType type) { return type == WeightType::q6_k; }

template <WeightType type>
struct TwoGroups {
  static constexpr int halves = halves_of_group(type);
  std::uint32_t words[2][8];
  float scale[2][halves];
  float minimum[2][has_minimum(type) ? halves : 1];
};

// N words from any address: where that is not a multiple of 4, each is put together from two. Reads up to 3 bytes
// before them and 4 after. alike: all lanes are as far from a multiple of 4.
template <int N>
struct Words {
  std::uint32_t at[N];

  // At byte `byte` of them, which need not be a word's first.
  template <int byte>
  __device__ std::uint32_t word() const {
    if constexpr (byte % 4 == 0)
      return at[byte / 4];
    else
      return __funnelshift_r(at[byte / 4], at[byte / 4 + 1], byte % 4 * 8);
  }
  template <int byte>
  __device__ float half() const {
    static_assert(byte % 2 == 0);
    return to_float(f16::from_bits(static_cast<std::uint16_t>(at[byte / 4] >> (byte % 4 * 8))));
  }
};
template <int N, bool alike = false>
__device__ Words<N> words_at(const std::uint8_t* from) {
  const int past = static_cast<int>(reinterpret_cast<std::uintptr_t>(from) % 4);
  const auto* const whole = reinterpret_cast<const std::uint32_t*>(from - past);
  Words<N> result;
  if (alike && past == 0) {
    for (int i = 0; i < N; ++i) result.at[i] = whole[i];
    return result;
  }
  std::uint32_t low = whole[0];
  TROIKA_UNROLL
  for (int i = 0; i < N; ++i) {
    const std::uint32_t high = whole[i + 1];
    result.at[i] = __funnelshift_r(low, high, past * 8);
    low = high;
  }
  return result;
}
// From a multiple of 16.
template <int N>
__device__ Words<N> aligned_words_at(const std::uint8_t* from) {
  Words<N> result;
  for (int i = 0; i < N; i += 4) {
    const auto four = load_pack<Pack<std::uint32_t, 4>>(from + 4 * i);
    for (int j = 0; j < 4; ++j) result.at[i + j] = four.at[j];
  }
  return result;
}

// Bit i of the lowest four becomes bit `to` of byte i.
template <int to>
__device__ std::uint32_t spread(std::uint32_t bits) {
  return (bits & 15) * (0x00204081u << to) & 0x01010101u << to;
}
// The entries of a table of 16 that the eight halves of a word's bytes name: low ones to `low`, high ones to `high`.
__device__ inline void look_up(const Table16& table, std::uint32_t word, std::uint32_t& low, std::uint32_t& high) {
  const auto of = [&](std::uint32_t names, std::uint32_t upper) {
    const std::uint32_t below = __byte_perm(static_cast<std::uint32_t>(table.low),
                                            static_cast<std::uint32_t>(table.low >> 32), names & 0x7777u);
    const std::uint32_t above = __byte_perm(static_cast<std::uint32_t>(table.high),
                                            static_cast<std::uint32_t>(table.high >> 32), names & 0x7777u);
    return __byte_perm(below, above, upper);
  };
  // Byte i of the first four, or of the others: names of 8 and more are in the table's second half.
  const std::uint32_t choose = (word & 0x88888888u) >> 1 | 0x32103210u;
  const std::uint32_t first = of(word, choose & 0xffffu), second = of(word >> 16, choose >> 16);
  low = __byte_perm(first, second, 0x6420);
  high = __byte_perm(first, second, 0x7531);
}

// A block of 32 that begins at byte `at` of the lane's words.
template <WeightType type, int at, int N>
__device__ void block_bytes(const Words<N>& b, TwoGroups<type>& w, int group) {
  constexpr int quants = at + (type == WeightType::q4_1    ? 4
                               : type == WeightType::q5_0  ? 6
                               : type == WeightType::q5_1  ? 8
                               : type == WeightType::mxfp4 ? 1
                                                           : 2);
  auto& words = w.words[group];
  if constexpr (type == WeightType::mxfp4) {
    // 2^(e - 128): an exponent without sign or fraction, halved.
    const std::uint32_t e = b.template word<at>() & 255;
    w.scale[group][0] = float_of_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);
  } else {
    w.scale[group][0] = b.template half<at>();
  }
  if constexpr (has_minimum(type)) w.minimum[group][0] = -b.template half<at + 2>();

  const auto each = [&]<int... i>(std::integer_sequence<int, i...>, auto f) {
    (f(std::integral_constant<int, i>{}, b.template word<quants + 4 * i>()), ...);
  };
  if constexpr (type == WeightType::q8_0) {
    each(std::make_integer_sequence<int, 8>{}, [&](auto i, std::uint32_t word) { words[i] = word; });
  } else if constexpr (type == WeightType::iq4_nl || type == WeightType::mxfp4) {
    constexpr Table16 table(type == WeightType::mxfp4 ? quantised::mxfp4_values : quantised::iq4_nl_values);
    each(std::make_integer_sequence<int, 4>{},
         [&](auto i, std::uint32_t word) { look_up(Table16(table), word, words[i], words[i + 4]); });
  } else {
    each(std::make_integer_sequence<int, 4>{}, [&](auto i, std::uint32_t word) {
      words[i] = word & 0x0f0f0f0fu;
      words[i + 4] = word >> 4 & 0x0f0f0f0fu;
    });
    if constexpr (type == WeightType::q5_0 || type == WeightType::q5_1) {
      const std::uint32_t fifth = b.template word<quants - 4>();
      for (int i = 0; i < 8; ++i) words[i] |= spread<4>(fifth >> (4 * i));
    }
  }
}

// Scales and minima of groups 2c and 2c + 1, 6 bits each, of the 16 bytes that a block of Q4_K or Q5_K begins with.
template <WeightType type>
__device__ void six_bit_scales(const Words<4>& header, int c, TwoGroups<type>& w) {
  const int shift = c % 2 * 16;
  const std::uint32_t low = header.at[1] >> shift, high = header.at[2] >> shift, both = header.at[3] >> shift;
  const std::uint32_t scales = c < 2 ? low & 0x3f3fu : (both & 0x0f0fu) | (low >> 2 & 0x3030u);
  const std::uint32_t minima = c < 2 ? high & 0x3f3fu : (both >> 4 & 0x0f0fu) | (high >> 2 & 0x3030u);
  const float d = header.half<0>(), m = header.half<2>();
  for (int g = 0; g < 2; ++g) {
    w.scale[g][0] = d * static_cast<float>(scales >> (8 * g) & 255);
    w.minimum[g][0] = m * static_cast<float>(minima >> (8 * g) & 255);
  }
}

// What this lane takes of the piece of a row that begins at `piece`.
template <WeightType type>
__device__ TwoGroups<type> two_groups(const std::uint8_t* piece, int lane) {
  constexpr int bytes = static_cast<int>(layout_of(type).bytes);
  TwoGroups<type> w;
  if constexpr (layout_of(type).block == 32) {
    const auto b = words_at<(2 * bytes + 3) / 4, bytes % 2 == 0>(piece + lane * 2 * bytes);
    block_bytes<type, 0>(b, w, 0);
    block_bytes<type, bytes>(b, w, 1);
    return w;
  } else {
    const std::uint8_t* const block = piece + lane / 4 * bytes;
    const int c = lane % 4, part = c / 2;
    if constexpr (type == WeightType::q4_k || type == WeightType::q5_k) {
      six_bit_scales(aligned_words_at<4>(block), c, w);
      const auto quants = aligned_words_at<8>(block + (type == WeightType::q4_k ? 16 : 48) + 32 * c);
      for (int i = 0; i < 8; ++i) {
        w.words[0][i] = quants.at[i] & 0x0f0f0f0fu;
        w.words[1][i] = quants.at[i] >> 4 & 0x0f0f0f0fu;
      }
      if constexpr (type == WeightType::q5_k) {
        const auto fifth = aligned_words_at<8>(block + 16);
        for (int g = 0; g < 2; ++g)
          for (int i = 0; i < 8; ++i) w.words[g][i] |= (fifth.at[i] >> (2 * c + g) & 0x01010101u) << 4;
      }
    } else if constexpr (type == WeightType::q6_k) {
      const int h = c % 2;  // of the part: its groups h and h + 2
      const auto quants = words_at<8>(block + 64 * part + 32 * h), high = words_at<8>(block + 128 + 32 * part);
      const BlockBytes b{block};
      const float d = b.half(208);
      for (int g = 0; g < 2; ++g) {
        const int scales = b.u16(192 + 8 * part + 2 * (h + 2 * g));
        w.scale[g][0] = d * static_cast<float>(static_cast<std::int8_t>(scales));
        w.scale[g][1] = d * static_cast<float>(static_cast<std::int8_t>(scales >> 8));
        for (int i = 0; i < 8; ++i)
          w.words[g][i] = (quants.at[i] >> (4 * g) & 0x0f0f0f0fu) | (high.at[i] >> (2 * h + 4 * g) & 0x03030303u) << 4;
      }
    } else if constexpr (type == WeightType::q2_k) {
      const auto quants = words_at<8>(block + 16 + 32 * part);
      const auto scales = words_at<1>(block + 4 * c);
      const BlockBytes b{block};
      const float d = b.half(80), m = b.half(82);
      for (int g = 0; g < 2; ++g) {
        for (int half = 0; half < 2; ++half) {
          const std::uint32_t both = scales.at[0] >> (16 * g + 8 * half);
          w.scale[g][half] = d * static_cast<float>(both & 15);
          w.minimum[g][half] = m * static_cast<float>(both >> 4 & 15);
        }
        for (int i = 0; i < 8; ++i) w.words[g][i] = quants.at[i] >> (4 * (c % 2) + 2 * g) & 0x03030303u;
      }
    } else {
      static_assert(type == WeightType::q3_k);
      const auto third = words_at<8>(block), quants = words_at<8>(block + 32 + 32 * part);
      const auto scales = words_at<3>(block + 96);
      const BlockBytes b{block};
      const float d = b.half(108);
      // The four scales of 6 bits, less 32: low bits of two groups in a byte, high bits of four.
      const std::uint32_t low = (c % 2 == 0 ? scales.at[0] : scales.at[1]) >> (4 * part) & 0x0f0f0f0fu,
                          high = scales.at[2] >> (2 * c) & 0x03030303u, six = low | high << 4;
      for (int g = 0; g < 2; ++g) {
        for (int half = 0; half < 2; ++half)
          w.scale[g][half] = d * static_cast<float>(static_cast<int>(six >> (16 * g + 8 * half) & 255) - 32);
        for (int i = 0; i < 8; ++i) {
          w.words[g][i] =
              (quants.at[i] >> (4 * (c % 2) + 2 * g) & 0x03030303u) | (third.at[i] >> (2 * c + g) & 0x01010101u) << 2;
        }
      }
    }
    return w;
  }
}

// Products of one of the two groups with a group of activations.
template <WeightType type>
__device__ float dot_group(const TwoGroups<type>& w, int group, const std::uint32_t (&x)[8], const RoundedGroup& of_x) {
  constexpr int halves = halves_of_group(type), words = 8 / halves;
  float sum = 0;
  for (int half = 0; half < halves; ++half) {
    const int sum_of_x = halves == 1 ? of_x.first + of_x.second : half == 0 ? of_x.first : of_x.second;
    int products = -byte_offset(type) * sum_of_x;
    for (int i = half * words; i < (half + 1) * words; ++i)
      products = __dp4a(static_cast<int>(w.words[group][i]), static_cast<int>(x[i]), products);
    sum += w.scale[group][half] * static_cast<float>(products);
    if constexpr (has_minimum(type)) sum -= w.minimum[group][half] * static_cast<float>(sum_of_x);
  }
  return of_x.scale * sum;
}

}  // namespace troika::cuda
