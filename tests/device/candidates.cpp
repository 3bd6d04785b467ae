// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <troika/device/host/candidates.hpp>

#include "inputs.hpp"

using namespace troika;
using namespace troika::test;

TEST_CASE("the best candidates come in order, lower ids first among equals") {
  HostDevice device;
  HostStream stream(device);
  for (const auto level : levels()) {
    for (const std::int64_t size : {0, 1, 2, 3, 5, 7, 15, 16, 17, 63, 64, 65, 127, 129, 1009}) {
      for (const bool many_ties : {false, true}) {
        auto logits = random_values(size, 5, -4, 4);
        if (many_ties)
          for (auto& logit : logits) logit = std::floor(logit);
        std::vector<Candidate> all;
        for (std::size_t i = 0; i < logits.size(); ++i) all.push_back({logits[i], static_cast<std::int32_t>(100 + i)});
        std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
          return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
        });
        for (const std::size_t k : {0u, 1u, 2u, 7u, 40u, 2000u}) {
          std::vector<Candidate> best(k);
          const auto count = top_candidates(stream, logits, 100, best, level);
          CAPTURE(to_string(level), size, k, many_ties);
          REQUIRE(count == std::min(k, logits.size()));
          std::int64_t wrong = 0;
          for (std::size_t i = 0; i < count; ++i) wrong += best[i].logit != all[i].logit || best[i].id != all[i].id;
          REQUIRE(wrong == 0);
        }
      }
    }
  }
}

TEST_CASE("the statistics of a shard are its largest logit and the sum of what is relative to it") {
  HostDevice device;
  HostStream stream(device);
  for (const auto level : levels()) {
    for (const std::int64_t size : {1, 2, 3, 5, 7, 17, 63, 64, 65, 127, 129, 50021}) {
      const auto logits = random_values(size, 6, -20, 20);
      const auto result = logit_statistics(stream, logits, level);
      double sum = 0;
      for (const float logit : logits) sum += std::exp(double(logit) - double(result.max));
      CAPTURE(to_string(level), size);
      REQUIRE(result.max == *std::max_element(logits.begin(), logits.end()));
      REQUIRE(close(result.sum, sum, 1e-6 * sum));
    }
    const float infinity = std::numeric_limits<float>::infinity();
    const auto empty = logit_statistics(stream, {}, level);
    REQUIRE(empty.max == -infinity);
    REQUIRE(empty.sum == 0);
    REQUIRE(logit_statistics(stream, std::vector<float>(20, -infinity), level).sum == 0);
    const auto infinite = logit_statistics(stream, std::vector<float>{1, infinity, 2, infinity}, level);
    REQUIRE(infinite.max == infinity);
    REQUIRE(infinite.sum == 2);
    const std::vector<float> some{-infinity, 3, -infinity};
    REQUIRE(logit_statistics(stream, some, level).sum == 1);
  }
}

TEST_CASE("a NaN among the logits is an error wherever it is") {
  HostDevice device;
  HostStream stream(device);
  for (const auto level : levels()) {
    for (std::size_t at = 0; at < 67; ++at) {
      auto logits = random_values(67, 7);
      logits[at] = std::numeric_limits<float>::quiet_NaN();
      std::vector<Candidate> best(3);
      CAPTURE(to_string(level), at);
      REQUIRE_THROWS_WITH(top_candidates(stream, logits, 1000, best, level),
                          Catch::Matchers::ContainsSubstring("token " + std::to_string(1000 + at)));
      REQUIRE_THROWS_AS(logit_statistics(stream, logits, level), Error);
    }
  }
}

TEST_CASE("token ids that do not fit are an error") {
  HostDevice device;
  HostStream stream(device);
  const std::vector<float> logits(3, 0);
  std::vector<Candidate> best(1);
  REQUIRE_THROWS_AS(top_candidates(stream, logits, -1, best), Error);
  REQUIRE_THROWS_AS(top_candidates(stream, logits, std::int64_t{1} << 31, best), Error);
}
