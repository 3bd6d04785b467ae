// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include <troika/core/dtype.hpp>
#include <troika/core/error.hpp>
#include <troika/core/weight_type.hpp>

// What stored weights mean, in plain C++: the truth that every kernel is compared with, and slow. Each value is the one
// that the package `gguf` computes from the same bytes, bit for bit, unless the compiler fuses a multiplication with a
// subtraction (Q4_1, Q5_1, Q2_K, Q4_K, Q5_K, on machines with FMA and flags that allow it): then the last bit may
// differ.
namespace troika {
namespace quantised {

// The values of 4-bit types that are not evenly spaced.
inline constexpr std::array<std::int8_t, 16> iq4_nl_values{-127, -104, -83, -65, -49, -35, -22, -10,
                                                           1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr std::array<std::int8_t, 16> mxfp4_values{0, 1,  2,  3,  4,  6,  8,  12,
                                                          0, -1, -2, -3, -4, -6, -8, -12};  // doubled

// The bytes of a block.
struct Block {
  const std::byte* data;

  int u8(int at) const { return std::to_integer<int>(data[at]); }
  int i8(int at) const { return static_cast<std::int8_t>(u8(at)); }
  int low(int at) const { return u8(at) & 15; }
  int high(int at) const { return u8(at) >> 4; }
  std::uint16_t u16(int at) const { return static_cast<std::uint16_t>(u8(at) | u8(at + 1) << 8); }
  float half(int at) const { return static_cast<float>(f16::from_bits(u16(at))); }
  // Bit `bit` of the little endian number that begins at `at`.
  int bit(int at, int bit) const { return u8(at + bit / 8) >> (bit % 8) & 1; }
};

// 32 elements; the low halves of the 16 bytes at `at` are the first 16, the high halves the rest.
template <class Value>
void halves(Block b, int at, float* out, Value value) {
  for (int i = 0; i < 16; ++i) {
    out[i] = value(b.low(at + i), i);
    out[i + 16] = value(b.high(at + i), i + 16);
  }
}

inline void q4_0(Block b, float* out) {  // half d; 16 bytes
  const float d = b.half(0);
  halves(b, 2, out, [=](int q, int) { return d * static_cast<float>(q - 8); });
}
inline void q4_1(Block b, float* out) {  // half d, half minimum; 16 bytes
  const float d = b.half(0), m = b.half(2);
  halves(b, 4, out, [=](int q, int) { return d * static_cast<float>(q) + m; });
}
inline void q5_0(Block b, float* out) {  // half d; the fifth bits, 4 bytes; 16 bytes
  const float d = b.half(0);
  halves(b, 6, out, [=](int q, int i) { return d * static_cast<float>((q | b.bit(2, i) << 4) - 16); });
}
inline void q5_1(Block b, float* out) {  // half d, half minimum; the fifth bits, 4 bytes; 16 bytes
  const float d = b.half(0), m = b.half(2);
  halves(b, 8, out, [=](int q, int i) { return d * static_cast<float>(q | b.bit(4, i) << 4) + m; });
}
inline void q8_0(Block b, float* out) {  // half d; 32 signed bytes
  const float d = b.half(0);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(b.i8(2 + i));
}
inline void iq4_nl(Block b, float* out) {  // half d; 16 bytes
  const float d = b.half(0);
  halves(b, 2, out, [=](int q, int) { return d * static_cast<float>(iq4_nl_values[static_cast<std::size_t>(q)]); });
}
// An exponent without sign or fraction, halved: 2^(e - 128).
inline float e8m0_half(int e) {
  const auto bits = static_cast<std::uint32_t>(e);
  return std::bit_cast<float>(bits < 2 ? 0x00200000u << bits : (bits - 1) << 23);
}
inline void mxfp4(Block b, float* out) {  // exponent, 1 byte; 16 bytes
  const float d = e8m0_half(b.u8(0));
  halves(b, 1, out, [=](int q, int) { return d * static_cast<float>(mxfp4_values[static_cast<std::size_t>(q)]); });
}

// The K types: 256 elements in groups that share a scale, the scales themselves being small integers times a half.

// Q2_K: 16 bytes of scale (low) and minimum (high) of groups of 16; 64 bytes; half d; half d of the minima.
inline void q2_k(Block b, float* out) {
  const float d = b.half(80), dmin = b.half(82);
  for (int i = 0; i < 256; ++i) {
    const int group = i / 16, part = i / 128, shift = i % 128 / 32 * 2;
    const int q = b.u8(16 + part * 32 + i % 32) >> shift & 3;
    out[i] = (d * static_cast<float>(b.low(group))) * static_cast<float>(q) - dmin * static_cast<float>(b.high(group));
  }
}

// The 16 scales of Q3_K, 6 bits each: the low four bits in 8 bytes, the high two in 4 more.
inline int q3_k_scale(Block b, int at, int group) {
  const int low = group < 8 ? b.low(at + group) : b.high(at + group - 8);
  return (low | (b.u8(at + 8 + group % 4) >> (group / 4 * 2) & 3) << 4) - 32;
}
// Q3_K: the third bits, 32 bytes; 64 bytes; the scales, 12 bytes; half d. A third bit of 0 takes 4 away.
inline void q3_k(Block b, float* out) {
  const float d = b.half(108);
  for (int i = 0; i < 256; ++i) {
    const int part = i / 128, shift = i % 128 / 32 * 2;
    const int low = b.u8(32 + part * 32 + i % 32) >> shift & 3, high = b.u8(i % 32) >> (i / 32) & 1;
    out[i] = (d * static_cast<float>(q3_k_scale(b, 96, i / 16))) * static_cast<float>(low - (high ? 0 : 4));
  }
}

// The 8 scales and 8 minima of Q4_K and Q5_K, 6 bits each, in 12 bytes.
struct ScaleAndMinimum {
  int scale, minimum;
};
inline ScaleAndMinimum q4_k_scale(Block b, int at, int group) {
  if (group < 4) return {b.u8(at + group) & 63, b.u8(at + 4 + group) & 63};
  const int both = b.u8(at + 4 + group);
  return {(both & 15) | (b.u8(at + group - 4) >> 6) << 4, both >> 4 | (b.u8(at + group) >> 6) << 4};
}
// Q4_K: half d; half d of the minima; 12 bytes of scales; 128 bytes.
inline void q4_k(Block b, float* out) {
  const float d = b.half(0), dmin = b.half(2);
  for (int i = 0; i < 256; ++i) {
    const auto [scale, minimum] = q4_k_scale(b, 4, i / 32);
    const int at = 16 + i / 64 * 32 + i % 32, q = i % 64 < 32 ? b.low(at) : b.high(at);
    out[i] = (d * static_cast<float>(scale)) * static_cast<float>(q) - dmin * static_cast<float>(minimum);
  }
}
// Q5_K: as Q4_K, with the fifth bits, 32 bytes, before the 128.
inline void q5_k(Block b, float* out) {
  const float d = b.half(0), dmin = b.half(2);
  for (int i = 0; i < 256; ++i) {
    const auto [scale, minimum] = q4_k_scale(b, 4, i / 32);
    const int at = 48 + i / 64 * 32 + i % 32, low = i % 64 < 32 ? b.low(at) : b.high(at);
    const int q = low | (b.u8(16 + i % 32) >> (i / 32) & 1) << 4;
    out[i] = (d * static_cast<float>(scale)) * static_cast<float>(q) - dmin * static_cast<float>(minimum);
  }
}
// Q6_K: 128 bytes of low halves; 64 bytes of high pairs; 16 signed scales; half d.
inline void q6_k(Block b, float* out) {
  const float d = b.half(208);
  for (int i = 0; i < 256; ++i) {
    const int part = i / 128, in = i % 128, at = part * 64 + in % 64;
    const int low = in < 64 ? b.low(at) : b.high(at), high = b.u8(128 + part * 32 + in % 32) >> (in / 32 * 2) & 3;
    out[i] = (d * static_cast<float>(b.i8(192 + i / 16))) * static_cast<float>((low | high << 4) - 32);
  }
}

}  // namespace quantised

// `out.size()` elements from their blocks, which may lie at any address. Error{invalid_argument} when a block would be
// cut.
inline void dequantize(WeightType type, const std::byte* blocks, std::span<float> out) {
  using namespace quantised;
  const auto& layout = layout_of(type);
  const auto block = static_cast<std::size_t>(layout.block);
  expects(out.size() % block == 0, [&] {
    return std::to_string(out.size()) + " elements of " + std::string(layout.name) +
           " were asked for; they come in blocks of " + std::to_string(block);
  });
  const auto each = [&](auto values) {
    for (std::size_t i = 0; i < out.size() / block; ++i)
      values(Block{blocks + i * layout.bytes}, out.data() + i * block);
  };
  switch (type) {
    case WeightType::f32:
      if (!out.empty()) std::memcpy(out.data(), blocks, out.size_bytes());
      return;
    case WeightType::f16: return each([](Block b, float* to) { *to = b.half(0); });
    case WeightType::bf16: return each([](Block b, float* to) { *to = static_cast<float>(bf16::from_bits(b.u16(0))); });
    case WeightType::q4_0: return each(q4_0);
    case WeightType::q4_1: return each(q4_1);
    case WeightType::q5_0: return each(q5_0);
    case WeightType::q5_1: return each(q5_1);
    case WeightType::q8_0: return each(q8_0);
    case WeightType::q2_k: return each(q2_k);
    case WeightType::q3_k: return each(q3_k);
    case WeightType::q4_k: return each(q4_k);
    case WeightType::q5_k: return each(q5_k);
    case WeightType::q6_k: return each(q6_k);
    case WeightType::iq4_nl: return each(iq4_nl);
    case WeightType::mxfp4: return each(mxfp4);
  }
}

}  // namespace troika
