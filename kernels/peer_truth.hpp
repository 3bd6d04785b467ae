// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

namespace troika::truth {

// The sum of what ranks hold of one element, in float: that of the first ranks, as many as the largest power of two
// below their number, plus that of the others.
inline float sum_over_ranks(std::span<const float> of_ranks) {
  if (of_ranks.size() == 1) return of_ranks[0];
  std::size_t half = 1;
  while (half * 2 < of_ranks.size()) half *= 2;
  return sum_over_ranks(of_ranks.first(half)) + sum_over_ranks(of_ranks.subspan(half));
}

}  // namespace troika::truth
