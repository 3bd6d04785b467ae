// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <troika/serving/engine.hpp>

namespace troika::serving {

struct EndedRequest {
  Clock::time_point at{};
  std::string model{};
  GenerationEnd end{};

  double first_token_seconds() const { return std::chrono::duration<double>(end.waited + end.prompt_time).count(); }
  double seconds_per_token() const {
    return std::chrono::duration<double>(end.token_time).count() /
           static_cast<double>(std::max<std::int64_t>(1, end.tokens - 1));
  }
};

// The smallest value that is no less than `share` of all of them; 0 of none.
inline double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto rank = std::ceil(share * static_cast<double>(values.size()));
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(std::max(rank, 1.0)) - 1;
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// The latest requests. Thread-safe.
class RequestLog {
 public:
  static constexpr std::size_t most = 1000;

  void add(EndedRequest request) {
    std::lock_guard lock(mutex_);
    requests_.push_back(std::move(request));
    if (requests_.size() > most) requests_.pop_front();
  }
  // Those that ended at `from` or later, oldest first.
  std::vector<EndedRequest> since(Clock::time_point from) const {
    std::lock_guard lock(mutex_);
    const auto first = std::ranges::find_if(requests_, [&](const auto& request) { return request.at >= from; });
    return {first, requests_.end()};
  }

 private:
  mutable std::mutex mutex_;
  std::deque<EndedRequest> requests_;
};

}  // namespace troika::serving
