// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include <troika/core/dequantize.hpp>
#include <troika/core/dtype.hpp>
#include <troika/core/weight_type.hpp>

#include "inputs.hpp"

namespace troika::test {

inline constexpr std::array quantised_types{WeightType::q4_0, WeightType::q4_1, WeightType::q5_0,   WeightType::q5_1,
                                            WeightType::q8_0, WeightType::q2_k, WeightType::q3_k,   WeightType::q4_k,
                                            WeightType::q5_k, WeightType::q6_k, WeightType::iq4_nl, WeightType::mxfp4};

// Where a block keeps its halves.
inline std::vector<std::size_t> halves_of(WeightType type) {
  switch (type) {
    case WeightType::q4_1:
    case WeightType::q5_1:
    case WeightType::q4_k:
    case WeightType::q5_k: return {0, 2};
    case WeightType::q2_k: return {80, 82};
    case WeightType::q3_k: return {108};
    case WeightType::q6_k: return {208};
    case WeightType::mxfp4: return {};
    default: return {0};
  }
}

// Blocks of random bytes, all patterns of them, with scales of moderate size and both signs.
inline std::vector<std::byte> random_blocks(WeightType type, std::int64_t elements, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(row_bytes(type, elements));
  for (auto& value : bytes) value = static_cast<std::byte>(random() & 255);
  for (std::size_t at = 0; at < bytes.size(); at += layout_of(type).bytes) {
    if (type == WeightType::mxfp4) bytes[at] = static_cast<std::byte>(118 + random() % 8);
    for (const auto half : halves_of(type)) {
      const float size = 0.001f + 0.00001f * static_cast<float>(random() % 1000);
      const f16 value(random() % 2 ? size : -size);
      std::memcpy(bytes.data() + at + half, &value.bits, 2);
    }
  }
  return bytes;
}

inline std::vector<float> expanded(WeightType type, const std::vector<std::byte>& blocks) {
  std::vector<float> values(blocks.size() / layout_of(type).bytes * static_cast<std::size_t>(layout_of(type).block));
  dequantize(type, blocks.data(), values);
  return values;
}

inline bool has_minimum(WeightType type) { return halves_of(type).size() == 2; }

// Each group of 32 becomes whole multiples of 1/127 of its largest value.
inline std::vector<float> in_bytes(std::vector<float> x) {
  for (std::size_t at = 0; at < x.size(); at += 32) {
    float most = 0;
    for (std::size_t i = at; i < at + 32; ++i) most = std::max(most, std::abs(x[i]));
    for (std::size_t i = at; i < at + 32; ++i) {
      x[i] = most > 0 ? std::nearbyint(x[i] * (127.0f / most)) * (most / 127.0f) : 0.0f;
    }
  }
  return x;
}
// How many elements of y (m, n) are further from x (m, k) wT + bias, computed in double, than rounding of `epsilon`
// explains. Sizes: m, n, k. The bias may be empty.
inline std::int64_t wrong_products(std::array<std::int64_t, 3> sizes, std::span<const float> x,
                                   std::span<const float> w, std::span<const float> bias, std::span<const float> y,
                                   double rounding) {
  const auto [m, n, k] = sizes;
  const auto at = [](std::span<const float> values, std::int64_t i) {
    return static_cast<double>(values[static_cast<std::size_t>(i)]);
  };
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = bias.empty() ? 0 : at(bias, j), size = std::abs(sum);
      for (std::int64_t p = 0; p < k; ++p) {
        const double product = at(x, i * k + p) * at(w, j * k + p);
        sum += product;
        size += std::abs(product);
      }
      wrong += !close(at(y, i * n + j), sum, rounding * size * (4 + static_cast<double>(k) / 4));
    }
  }
  return wrong;
}

}  // namespace troika::test
