// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <troika/device/candidate.hpp>

namespace troika::truth {

// The best k logits, or all where there are fewer.
inline std::vector<Candidate> top_candidates(std::span<const float> logits, std::int32_t first_id, std::size_t k) {
  std::vector<Candidate> all;
  for (const float logit : logits) all.push_back({logit, first_id + static_cast<std::int32_t>(all.size())});
  std::sort(all.begin(), all.end(), better);
  all.resize(std::min(k, all.size()));
  return all;
}

}  // namespace troika::truth
