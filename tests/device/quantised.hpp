// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include <troika/core/dequantize.hpp>
#include <troika/core/dtype.hpp>
#include <troika/core/weight_type.hpp>

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

}  // namespace troika::test
