// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <troika/core/weight_type.hpp>

namespace troika {

// A panel is 16 rows of a weight that is quantised or bf16, or what is left at its end, in an order that vectors of 16
// lanes read: block by block along the rows, and of the blocks of these rows first the field that is not made of words,
// if there is one, of each row, then word after word of 4 bytes, each of each row. Words come in the order in which
// they are needed: then memory is read from front to back, and the processor fetches ahead by itself. A panel takes as
// many bytes as its rows.
inline constexpr std::int64_t panel_rows = 16;

namespace kernels {

// Bytes and elements of a block; of bf16, two neighbours make one.
constexpr std::int64_t panel_block_bytes(WeightType type) {
  return is_quantised(type) ? static_cast<std::int64_t>(layout_of(type).bytes) : 4;
}
constexpr std::int64_t panel_block(WeightType type) { return is_quantised(type) ? layout_of(type).block : 2; }

struct PanelFields {
  WeightType type;
  std::int64_t small_at, small_bytes;  // the field that is not made of words: where it begins in a block

  constexpr std::int64_t words() const { return (panel_block_bytes(type) - small_bytes) / 4; }
  // Where word i of a panel begins in a block.
  constexpr std::int64_t word_at(std::int64_t i) const {
    switch (type) {
      case WeightType::q2_k: return i == 0 ? 80 : 4 * (i - 1);     // halves, scales, bits
      case WeightType::q3_k: return 4 * (i < 3 ? 24 + i : i - 3);  // scales, high bits, low bits
      case WeightType::q6_k:  // scales; high bits and low bits of the first half; the same of the second
        return 4 * (i < 4 ? 48 + i : i < 12 ? 28 + i : i < 28 ? i - 12 : i < 36 ? 12 + i : i - 20);
      default: return small_bytes + 4 * i;
    }
  }
};

constexpr PanelFields panel_fields(WeightType type) {
  const std::int64_t bytes = panel_block_bytes(type);
  const bool at_the_end = type == WeightType::q3_k || type == WeightType::q6_k;  // else the scale comes first
  return {type, at_the_end ? bytes - bytes % 4 : 0, bytes % 4};
}

// The largest byte of an element once it is unpacked (kernels/panels.hpp), of quantised types.
constexpr int largest_panel_byte(WeightType type) {
  switch (type) {
    case WeightType::q2_k: return 3;
    case WeightType::q3_k: return 7;
    case WeightType::q4_0:
    case WeightType::q4_1:
    case WeightType::q4_k: return 15;
    case WeightType::mxfp4: return 24;
    case WeightType::q5_0:
    case WeightType::q5_1:
    case WeightType::q5_k: return 31;
    case WeightType::q6_k: return 63;
    default: return 255;
  }
}

}  // namespace kernels
}  // namespace troika
