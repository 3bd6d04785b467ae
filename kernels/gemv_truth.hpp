// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <troika/core/dequantize.hpp>

namespace troika::truth {

// One element of x W^T, from a row of W as it is stored and a row of x.
inline double dot(WeightType type, const std::byte* row, std::span<const float> x) {
  std::vector<float> weights(x.size());
  dequantize(type, row, weights);
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(weights[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace troika::truth
