// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace troika::truth {

// What norm.cuh computes, of one row, in double. Without a bias: empty.
inline std::vector<double> norm(bool centred, std::span<const float> x, std::span<const float> residual,
                                std::span<const float> weight, std::span<const float> bias, double eps) {
  std::vector<double> y(x.begin(), x.end());
  for (std::size_t i = 0; i < residual.size(); ++i) y[i] = static_cast<double>(x[i] + residual[i]);  // stored as float
  double mean = 0, variance = 0;
  if (centred)
    for (const double value : y) mean += value / static_cast<double>(y.size());
  for (const double value : y) variance += (value - mean) * (value - mean) / static_cast<double>(y.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    y[i] = (y[i] - mean) / std::sqrt(variance + eps) * static_cast<double>(weight[i]);
    if (!bias.empty()) y[i] += static_cast<double>(bias[i]);
  }
  return y;
}

}  // namespace troika::truth
