// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <troika/core/dtype.hpp>

namespace troika {

// How the elements of a weight matrix are stored. The quantised ones are those of GGML: rows are cut into blocks of
// equal numbers of elements, and a block carries its own scales. A block never crosses from one row to the next.
enum class WeightType : std::uint8_t {
  f32,
  f16,
  bf16,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  mxfp4
};

struct WeightLayout {
  std::string_view name;  // as GGUF files and their tools spell it
  std::int64_t block;     // elements that are stored together
  std::size_t bytes;      // that a block takes
};

inline constexpr std::array<WeightLayout, 15> weight_layouts{{{"F32", 1, 4},
                                                              {"F16", 1, 2},
                                                              {"BF16", 1, 2},
                                                              {"Q4_0", 32, 18},
                                                              {"Q4_1", 32, 20},
                                                              {"Q5_0", 32, 22},
                                                              {"Q5_1", 32, 24},
                                                              {"Q8_0", 32, 34},
                                                              {"Q2_K", 256, 84},
                                                              {"Q3_K", 256, 110},
                                                              {"Q4_K", 256, 144},
                                                              {"Q5_K", 256, 176},
                                                              {"Q6_K", 256, 210},
                                                              {"IQ4_NL", 32, 18},
                                                              {"MXFP4", 32, 17}}};

constexpr const WeightLayout& layout_of(WeightType type) { return weight_layouts[static_cast<std::size_t>(type)]; }
constexpr std::string_view to_string(WeightType type) { return layout_of(type).name; }
constexpr bool is_quantised(WeightType type) { return layout_of(type).block > 1; }

// Bytes of a row; `elements` is a multiple of the block.
constexpr std::size_t row_bytes(WeightType type, std::int64_t elements) {
  return static_cast<std::size_t>(elements / layout_of(type).block) * layout_of(type).bytes;
}

constexpr std::optional<WeightType> weight_type_of(DType dtype) {
  if (dtype == DType::f32) return WeightType::f32;
  if (dtype == DType::f16) return WeightType::f16;
  if (dtype == DType::bf16) return WeightType::bf16;
  return std::nullopt;
}

}  // namespace troika
