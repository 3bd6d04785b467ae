// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace troika::truth {

inline std::vector<double> softmax(std::span<const float> x) {
  std::vector<double> y(x.begin(), x.end());
  const double largest = y.empty() ? 0 : *std::max_element(y.begin(), y.end());
  double sum = 0;
  for (double& value : y) sum += value = std::exp(value - largest);
  for (double& value : y) value /= sum;
  return y;
}

}  // namespace troika::truth
