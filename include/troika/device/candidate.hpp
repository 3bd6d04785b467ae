// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>

namespace troika {

// What a sampler needs to know of one shard of the vocabulary, so that the logits need not be gathered.
struct Candidate {
  float logit = 0;
  std::int32_t id = 0;
};

// The order in which tokens are preferred: higher logit, then lower id. The same on all ranks.
constexpr bool better(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Of a shard: its largest logit, and the sum of exp(logit - max). An empty shard has -infinity and 0.
struct LogitStatistics {
  float max = -std::numeric_limits<float>::infinity();
  double sum = 0;
};

}  // namespace troika
