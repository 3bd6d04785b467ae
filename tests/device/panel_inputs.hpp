// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <support/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <troika/device/host/panels.hpp>

#include "inputs.hpp"
#include "quantised.hpp"

namespace troika::test {

// Those that this processor has panels of: the quantised types, and bf16.
inline std::vector<WeightType> panel_types() {
  std::vector<WeightType> types(quantised_types.begin(), quantised_types.end());
  if (cpu_has_bf16()) types.push_back(WeightType::bf16);
  return types;
}
inline std::vector<float> in_pairs(std::vector<float> x) {
  for (auto& value : x) value = static_cast<float>(bf16(value));
  return x;
}
// Elements of a type, and what they mean.
struct Elements {
  std::vector<std::byte> bytes;
  std::vector<float> values;

  Elements(WeightType type, std::int64_t count, unsigned seed) {
    if (type == WeightType::bf16) {
      values = in_pairs(random_values(count, seed));
      for (const float value : values) {
        const auto bits = bf16(value).bits;
        bytes.push_back(static_cast<std::byte>(bits & 255));
        bytes.push_back(static_cast<std::byte>(bits >> 8));
      }
    } else {
      bytes = random_blocks(type, count, seed);
      values = expanded(type, bytes);
    }
  }
};

inline Weight<HostDevice> weight_of(HostDevice& device, WeightType type, std::int64_t rows, std::int64_t columns,
                                    const std::vector<std::byte>& blocks) {
  Weight<HostDevice> weight(device, type, {rows, columns});
  std::ranges::copy(blocks, weight.data());
  prepare_for_products(device, weight);
  return weight;
}

inline bool has_panels() {
  if (panel_level() != CpuLevel::plain) return true;
  WARN("this processor has no order of panels");
  return false;
}
// The levels whose kernels it can run.
inline std::vector<CpuLevel> panel_levels() {
  if (panel_level() == CpuLevel::avx512) return {CpuLevel::avx2, CpuLevel::avx512};
  return {CpuLevel::avx2};
}

// A product, product(x, weight), keeps NaN and infinities in their rows, and tiny activations finite.
template <class Product>
void check_strange_values(HostDevice& device, Product product) {
  for (const auto type : panel_types()) {
    const std::int64_t n = 9, k = 256;
    const auto weight = weight_of(device, type, n, k, Elements(type, n * k, 2).bytes);
    for (const float strange : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      for (const std::int64_t m : {1, 5, 40}) {
        auto x = random_values(m * k, 1);
        x[static_cast<std::size_t>((m - 1) * k + 37)] = strange;
        const std::vector<float> y = product(x, weight);
        for (std::size_t i = 0; i < y.size(); ++i)
          REQUIRE(std::isfinite(y[i]) == (i < static_cast<std::size_t>((m - 1) * n)));
      }
    }
    for (const float value : {0.0f, 1e-45f, 1e-38f}) {
      const std::vector<float> y = product(std::vector<float>(k, value), weight);
      for (const float result : y) REQUIRE(std::abs(result) <= 1e-30f);
    }
  }
}

}  // namespace troika::test
