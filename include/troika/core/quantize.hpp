// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>

#include <troika/core/dequantize.hpp>
#include <troika/core/dtype.hpp>
#include <troika/core/error.hpp>
#include <troika/core/weight_type.hpp>

// Numbers into blocks, the way back of dequantize.hpp. The 32-element types round as the PyPI package `gguf` does, to
// the bit: the extremes of a block give the scale, the rest is rounded to its steps. The K types search: a few scales
// are tried, each is fitted to what it rounds to by least squares, and the one with the smallest squared error stays
// (S. Lloyd, "Least squares quantization in PCM", IEEE Trans. Inf. Theory 28, 1982).
//
// A compiler may fuse the product and the sum of the 32-element types; then a number that lies between two steps may go
// the other way.
namespace troika {
namespace quantised {

// The bytes of a block that is written; they are 0 at first.
struct BlockOut {
  std::byte* data;

  void add(int at, int bits) const { data[at] |= static_cast<std::byte>(bits); }
  void half(int at, float value) const {
    const auto bits = f16(value).bits;
    expects(std::isfinite(static_cast<float>(f16::from_bits(bits))), [&] {
      return "a block has the scale " + std::to_string(value) +
             ", which a half does not hold; numbers are too large to quantise";
    });
    std::memcpy(data + at, &bits, 2);
  }
  // 32 elements: the first 16 into low halves of the 16 bytes at `at`, the rest into the high ones.
  void halves(int at, const std::array<int, 32>& q) const {
    for (int i = 0; i < 16; ++i)
      add(at + i, (q[static_cast<std::size_t>(i)] & 15) | (q[static_cast<std::size_t>(i + 16)] & 15) << 4);
  }
  void fifth_bits(int at, const std::array<int, 32>& q) const {
    for (int i = 0; i < 32; ++i) add(at + i / 8, (q[static_cast<std::size_t>(i)] >> 4 & 1) << (i % 8));
  }
};

// 0 for what is too small: then all steps are equal.
inline float inverse(float d) { return std::isfinite(1 / d) ? 1 / d : 0.0f; }

// Q4_0 and Q5_0: the number that is largest without its sign becomes the lowest step.
template <int levels>
void to_symmetric(const float* x, BlockOut to) {
  float extreme = 0;
  for (int i = 0; i < 32; ++i)
    if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
  const float d = extreme / -(levels / 2), id = inverse(d);
  std::array<int, 32> q;
  for (std::size_t i = 0; i < 32; ++i) {
    q[i] = static_cast<int>(std::clamp(x[i] * id + (levels / 2 + 0.5f), 0.0f, levels - 1.0f));
  }
  to.half(0, d);
  if constexpr (levels == 32) to.fifth_bits(2, q);
  to.halves(levels == 32 ? 6 : 2, q);
}

// Q4_1 and Q5_1: steps from the smallest number to the largest.
template <int levels>
void to_range(const float* x, BlockOut to) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float d = (*high - *low) / (levels - 1), id = inverse(d);
  std::array<int, 32> q;
  for (std::size_t i = 0; i < 32; ++i) {
    q[i] = static_cast<int>(std::clamp((x[i] - *low) * id + 0.5f, 0.0f, levels - 1.0f));
  }
  to.half(0, d), to.half(2, *low);
  if constexpr (levels == 32) to.fifth_bits(4, q);
  to.halves(levels == 32 ? 8 : 4, q);
}

inline void to_q8_0(const float* x, BlockOut to) {
  float most = 0;
  for (int i = 0; i < 32; ++i) most = std::max(most, std::abs(x[i]));
  const float d = most / 127, id = inverse(d);
  to.half(0, d);
  for (int i = 0; i < 32; ++i) to.add(2 + i, static_cast<std::uint8_t>(static_cast<int>(std::round(x[i] * id))));
}

// The nearest whole number, ties to even, kept within [low, high]: at 1.5 * 2^23 floats are whole numbers.
inline float nearest_float(float value, float low, float high) {
  return (std::clamp(value, low, high) + 0x1.8p23f) - 0x1.8p23f;
}
inline int nearest(float value, int low, int high) {
  return static_cast<int>(nearest_float(value, static_cast<float>(low), static_cast<float>(high)));
}

// x is about scale q - minimum, with q from 0 to `top`, and minimum not negative.
struct Affine {
  float scale = 0, minimum = 0;
};
inline Affine fit_affine(std::span<const float> x, int top) {
  const auto [low, high] = std::ranges::minmax(x);
  const float from = std::min(low, 0.0f), range = high - from;
  if (range <= 0) return {0, -from};
  Affine best{range / static_cast<float>(top), -from};
  double least = std::numeric_limits<double>::infinity();
  const double n = static_cast<double>(x.size());
  for (int attempt = 0; attempt <= 16; ++attempt) {  // ranges from a little more than all steps down to fewer
    const float id = (static_cast<float>(top) + 0.125f * static_cast<float>(attempt - 8)) / range;
    double q1 = 0, q2 = 0, x1 = 0, xq = 0, x2 = 0;
    for (const float value : x) {
      const double q = nearest_float((value - from) * id, 0, static_cast<float>(top)), v = value;
      q1 += q, q2 += q * q, x1 += v, xq += v * q, x2 += v * v;
    }
    const double spread = n * q2 - q1 * q1;
    if (spread <= 0) continue;
    double scale = (n * xq - x1 * q1) / spread, offset = (x1 - scale * q1) / n;
    if (offset > 0) offset = 0, scale = xq / q2;
    if (scale <= 0) continue;
    const double error =
        x2 + scale * scale * q2 + n * offset * offset - 2 * scale * xq - 2 * offset * x1 + 2 * scale * offset * q1;
    if (error < least) least = error, best = {static_cast<float>(scale), static_cast<float>(-offset)};
  }
  return best;
}

inline void to_q4_k(const float* x, BlockOut to) {
  std::array<Affine, 8> groups;
  Affine most;
  for (std::size_t g = 0; g < 8; ++g) {
    groups[g] = fit_affine(std::span(x + 32 * g, 32), 15);
    most = {std::max(most.scale, groups[g].scale), std::max(most.minimum, groups[g].minimum)};
  }
  to.half(0, most.scale / 63), to.half(2, most.minimum / 63);
  for (int g = 0; g < 8; ++g) {
    const auto& group = groups[static_cast<std::size_t>(g)];
    const int scale = nearest(63 * group.scale * inverse(most.scale), 0, 63);
    const int minimum = nearest(63 * group.minimum * inverse(most.minimum), 0, 63);
    if (g < 4) {
      to.add(4 + g, scale), to.add(8 + g, minimum);
    } else {
      to.add(8 + g, (scale & 15) | (minimum & 15) << 4);
      to.add(g, scale >> 4 << 6), to.add(4 + g, minimum >> 4 << 6);
    }
  }
  // The steps are counted with the scales as they were stored.
  const Block stored{to.data};
  for (int i = 0; i < 256; ++i) {
    const auto [scale, minimum] = q4_k_scale(stored, 4, i / 32);
    const float d = stored.half(0) * static_cast<float>(scale), m = stored.half(2) * static_cast<float>(minimum);
    const int q = nearest((x[i] + m) * inverse(d), 0, 15);
    to.add(16 + i / 64 * 32 + i % 32, i % 64 < 32 ? q : q << 4);
  }
}

// The scale of x, which is about scale q with q from -32 to 31.
inline float fit_symmetric(std::span<const float> x) {
  float extreme = 0;
  for (const float value : x)
    if (std::abs(value) > std::abs(extreme)) extreme = value;
  if (extreme == 0) return 0;
  double best = extreme / -32, most = -1;
  for (int attempt = -9; attempt <= 9; ++attempt) {
    const float id = -(32 + 0.1f * static_cast<float>(attempt)) / extreme;
    double xq = 0, q2 = 0;
    for (const float value : x) {
      const double q = nearest_float(value * id, -32, 31);
      xq += value * q, q2 += q * q;
    }
    // The squared error of the fitted scale is what x has in all, less this.
    if (q2 > 0 && xq * xq / q2 > most) most = xq * xq / q2, best = xq / q2;
  }
  return static_cast<float>(best);
}

inline void to_q6_k(const float* x, BlockOut to) {
  std::array<float, 16> scales;
  float extreme = 0;
  for (std::size_t g = 0; g < 16; ++g) {
    scales[g] = fit_symmetric(std::span(x + 16 * g, 16));
    if (std::abs(scales[g]) > std::abs(extreme)) extreme = scales[g];
  }
  to.half(208, extreme / -128);
  const Block stored{to.data};
  for (int g = 0; g < 16; ++g) {
    const int scale = nearest(-128 * scales[static_cast<std::size_t>(g)] * inverse(extreme), -128, 127);
    to.add(192 + g, static_cast<std::uint8_t>(scale));
    const float id = inverse(stored.half(208) * static_cast<float>(scale));
    for (int i = 16 * g; i < 16 * (g + 1); ++i) {
      const int q = nearest(x[i] * id, -32, 31) + 32, part = i / 128, in = i % 128;
      to.add(part * 64 + in % 64, in < 64 ? q & 15 : (q & 15) << 4);
      to.add(128 + part * 32 + in % 32, q >> 4 << (in / 32 * 2));
    }
  }
}

}  // namespace quantised

// What quantize() makes.
inline constexpr std::array quantizable{WeightType::f32,  WeightType::f16,  WeightType::bf16, WeightType::q8_0,
                                        WeightType::q4_0, WeightType::q4_1, WeightType::q5_0, WeightType::q5_1,
                                        WeightType::q4_k, WeightType::q6_k};

// Whole blocks of a type from `values`; `blocks` has room for row_bytes(type, values.size()), at any address.
// Error{invalid_argument} when a block would be cut, or where a number is not finite or too large; Error{unsupported}
// for types that are read only.
inline void quantize(WeightType type, std::span<const float> values, std::byte* blocks) {
  using namespace quantised;
  const auto& layout = layout_of(type);
  const auto block = static_cast<std::size_t>(layout.block);
  expects(values.size() % block == 0, [&] {
    return std::to_string(values.size()) + " elements were given to become " + std::string(layout.name) +
           "; they come in blocks of " + std::to_string(block);
  });
  if (values.empty()) return;
  if (type == WeightType::f32) {
    std::memcpy(blocks, values.data(), values.size_bytes());
    return;
  }
  const auto each = [&](auto convert) {
    for (std::size_t i = 0; i < values.size() / block; ++i)
      convert(values.data() + i * block, BlockOut{blocks + i * layout.bytes});
  };
  const auto store = [&](auto narrow) { std::memcpy(blocks, &narrow.bits, 2), blocks += 2; };
  if (type == WeightType::f16) {
    for (const float value : values) store(f16(value));
    return;
  }
  if (type == WeightType::bf16) {
    for (const float value : values) store(bf16(value));
    return;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    expects(std::abs(values[i]) <= 1e30f, [&] {
      return "element " + std::to_string(i) + " is " + std::to_string(values[i]) +
             "; only numbers up to 1e30 can become " + std::string(layout.name);
    });
  }
  std::memset(blocks, 0, values.size() / block * layout.bytes);
  switch (type) {
    case WeightType::q4_0: return each(to_symmetric<16>);
    case WeightType::q5_0: return each(to_symmetric<32>);
    case WeightType::q4_1: return each(to_range<16>);
    case WeightType::q5_1: return each(to_range<32>);
    case WeightType::q8_0: return each(to_q8_0);
    case WeightType::q4_k: return each(to_q4_k);
    case WeightType::q6_k: return each(to_q6_k);
    default:
      throw Error(Fault::unsupported,
                  std::string(layout.name) +
                      " is read, but not made; made are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q6_K");
  }
}

}  // namespace troika
