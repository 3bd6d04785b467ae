// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include <troika/communication/transport.hpp>
#include <troika/device/candidate.hpp>
#include <troika/sync/dtensor.hpp>

namespace troika {

// How likely a token was, and which tokens were likeliest: natural logarithms of probabilities.
struct TokenLogprobs {
  float drawn = 0;
  std::vector<Candidate> likeliest{};  // best first; log-probabilities in the place of logits
};

// Log-probabilities from logits that are split over the vocabulary. Each rank sends the statistics of its part and its
// best candidates, never the vocabulary; every rank gets the same.
template <class Communication>
class Logprobs {
 public:
  static constexpr int most_likeliest = 20;

  explicit Logprobs(Communication& communication)
      : communication_(&communication), all_(static_cast<std::size_t>(communication.world_size())) {}

  // Keeps a row of logits (tokens, vocabulary) as it is: what comes before drawing changes it.
  template <Device D>
  void keep(const DTensor<float, Shard<1>, D>& logits, std::int64_t row) {
    const auto shard = logits.local().rows(row, row + 1).span();
    row_.assign(shard.begin(), shard.end());
    first_ = logits.partition()[communication_->rank()].begin;
  }

  // Of the row that was kept, for the token that was drawn and `count` of the likeliest (0 to most_likeliest; fewer
  // where the vocabulary is smaller). A NaN is an Error on the rank that holds it. Collective.
  template <class S>
  TokenLogprobs of(std::int32_t drawn, int count, S& stream) {
    const auto statistics = logit_statistics(stream, std::span<const float>(row_));
    const std::int64_t at = drawn - first_;
    const bool here = at >= 0 && at < static_cast<std::int64_t>(row_.size());
    Part mine{.max = statistics.max,
              .drawn = here ? row_[static_cast<std::size_t>(at)] : -std::numeric_limits<float>::infinity(),
              .sum = statistics.sum};
    const auto best = std::span(mine.best).first(static_cast<std::size_t>(count));
    const auto found = top_candidates(stream, std::span<const float>(row_), first_, best);
    std::fill(mine.best.begin() + static_cast<std::ptrdiff_t>(found), mine.best.end(), Candidate{0, -1});
    communication_->all_gather(std::span(reinterpret_cast<const std::uint8_t*>(&mine), sizeof mine),
                               std::span(reinterpret_cast<std::uint8_t*>(all_.data()), all_.size() * sizeof mine));

    const auto largest = std::ranges::max(all_, {}, &Part::max).max;
    double sum = 0;
    for (const auto& part : all_) sum += part.sum > 0 ? part.sum * std::exp(double{part.max} - largest) : 0;
    const double log_sum = largest + std::log(sum);
    const auto logprob = [&](float logit) { return static_cast<float>(logit - log_sum); };

    TokenLogprobs result{.drawn = logprob(std::ranges::max(all_, {}, &Part::drawn).drawn)};
    auto& likeliest = result.likeliest;
    for (const auto& part : all_)
      std::ranges::copy_if(part.best, std::back_inserter(likeliest), [](const Candidate& c) { return c.id >= 0; });
    std::ranges::sort(likeliest, better);
    if (likeliest.size() > static_cast<std::size_t>(count)) likeliest.resize(static_cast<std::size_t>(count));
    for (auto& candidate : likeliest) candidate.logit = logprob(candidate.logit);
    return result;
  }

 private:
  struct Part {  // what a rank sends
    float max = 0, drawn = 0;
    double sum = 0;
    std::array<Candidate, most_likeliest> best{};
  };
  static_assert(std::is_trivially_copyable_v<Part>);

  Communication* communication_;
  std::vector<float> row_;  // kept, so that it is allocated once
  std::int64_t first_ = 0;
  std::vector<Part> all_;
};

}  // namespace troika
