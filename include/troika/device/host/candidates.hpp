// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include <troika/core/error.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>

// What a sampler needs to know of one shard of the vocabulary, so that the logits need not be gathered.
namespace troika {

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

// Writes the out.size() best of `logits`, best first, and returns how many there are (fewer where the shard is smaller).
// The logit at i belongs to token first_id + i. A NaN is an error: there is no best of it.
inline std::size_t top_candidates(HostStream&, std::span<const float> logits, std::int64_t first_id,
                                  std::span<Candidate> out, CpuLevel = cpu_level()) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    expects(!std::isnan(logits[i]), [&] { return "the logit of token " + std::to_string(first_id + static_cast<std::int64_t>(i)) + " is NaN"; });
    const Candidate candidate{logits[i], static_cast<std::int32_t>(first_id + static_cast<std::int64_t>(i))};
    if (count == out.size() && (count == 0 || !better(candidate, out[count - 1]))) continue;
    if (count < out.size()) ++count;
    std::size_t at = count - 1;
    for (; at > 0 && better(candidate, out[at - 1]); --at) out[at] = out[at - 1];
    out[at] = candidate;
  }
  return count;
}

// The largest logit and the sum of exp(logit - max). A NaN is an error.
inline LogitStatistics logit_statistics(HostStream&, std::span<const float> logits, CpuLevel = cpu_level()) {
  LogitStatistics result;
  for (const float logit : logits) {
    expects(!std::isnan(logit), "a logit is NaN");
    result.max = std::max(result.max, logit);
  }
  for (const float logit : logits) result.sum += logit == result.max ? 1.0 : std::exp(double(logit) - result.max);
  return result;
}

}  // namespace troika
