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
#include <troika/device/candidate.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/kernels.hpp>

namespace troika {

// Writes the out.size() best of `logits`, best first, and returns how many there are (fewer where the shard is
// smaller). The logit at i belongs to token first_id + i. A NaN is an error: there is no best of it.
inline std::size_t top_candidates(HostStream&, std::span<const float> logits, std::int64_t first_id,
                                  std::span<Candidate> out, CpuLevel level = cpu_level()) {
  const auto size = static_cast<std::int64_t>(logits.size());
  expects(first_id >= 0 && first_id + size - 1 <= std::numeric_limits<std::int32_t>::max(),
          [&] { return "token ids from " + std::to_string(first_id) + " on do not fit 31 bits"; });
  std::size_t count = 0;
  kernels::at_level<kernels::Rows>(level, [&]<class R>(R) {
    for (std::int64_t i = 0; i < size;) {
      // Once the list is full, only what beats its last is looked at; among equals the first stays, as ids ascend.
      if (count == out.size()) {
        const float limit = count > 0 ? out[count - 1].logit : std::numeric_limits<float>::infinity();
        i = R::next_above(logits.data(), limit, i, size);
      }
      for (const std::int64_t end = std::min(i + R::width, size); i < end; ++i) {
        const Candidate next{logits[static_cast<std::size_t>(i)], static_cast<std::int32_t>(first_id + i)};
        expects(!std::isnan(next.logit), [&] { return "the logit of token " + std::to_string(next.id) + " is NaN"; });
        if (count == out.size() && (count == 0 || !better(next, out[count - 1]))) continue;
        if (count < out.size()) ++count;
        std::size_t at = count - 1;
        for (; at > 0 && better(next, out[at - 1]); --at) out[at] = out[at - 1];
        out[at] = next;
      }
    }
  });
  return count;
}

// The largest logit and the sum of exp(logit - max). A NaN is an error.
inline LogitStatistics logit_statistics(HostStream&, std::span<const float> logits, CpuLevel level = cpu_level()) {
  const auto size = static_cast<std::int64_t>(logits.size());
  LogitStatistics result;
  kernels::at_level<kernels::Rows>(level, [&]<class R>(R) {
    expects(!R::has_nan(logits.data(), size), "a logit is NaN");
    result.max = R::max_of(logits.data(), size);
    if (std::isfinite(result.max))
      result.sum = R::exp_of(logits.data(), result.max, nullptr, size);
    else
      for (const float logit : logits)
        result.sum += result.max > 0 && logit == result.max;  // all else is nothing beside
  });
  return result;
}

}  // namespace troika
