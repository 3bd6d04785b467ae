// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace troika::truth {

// One query over keys and values (n, d) of which it reads all; zeros of none.
inline std::vector<double> attention(std::span<const float> query, std::span<const float> keys,
                                     std::span<const float> values, double scale, double cap) {
  const std::size_t d = query.size(), n = keys.size() / d;
  std::vector<double> weights(n), y(d);
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = 0; i < d; ++i)
      weights[k] += scale * static_cast<double>(query[i]) * static_cast<double>(keys[k * d + i]);
    if (cap > 0) weights[k] = cap * std::tanh(weights[k] / cap);
  }
  const double largest = n == 0 ? 0 : *std::max_element(weights.begin(), weights.end());
  double total = 0;
  for (double& weight : weights) total += weight = std::exp(weight - largest);
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = 0; i < d; ++i) y[i] += weights[k] / total * static_cast<double>(values[k * d + i]);
  }
  return y;
}

}  // namespace troika::truth
