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
  template <Device D, class S>
  void keep(const DTensor<float, Shard<1>, D>& logits, std::int64_t row, S& stream) {
    const auto on_host = read_back(stream, logits.local().rows(row, row + 1));
    const std::span<const float> shard = on_host.span();
    row_.assign(shard.begin(), shard.end());
    first_ = logits.partition()[communication_->rank()].begin;
  }

  // Of the row that was kept, for the token that was drawn and `count` of the likeliest (0 to most_likeliest; fewer
  // where the vocabulary is smaller). Collective.
  TokenLogprobs of(std::int32_t drawn, int count) {
    const std::int64_t at = drawn - first_;
    Part mine;
    for (const float logit : row_) mine.max = std::max(mine.max, logit);
    for (const float logit : row_) mine.sum += std::exp(double{logit} - mine.max);
    if (at >= 0 && at < static_cast<std::int64_t>(row_.size())) mine.drawn = row_[static_cast<std::size_t>(at)];
    const auto best = std::span(mine.best).first(static_cast<std::size_t>(count));
    for (std::size_t i = 0; count > 0 && i < row_.size(); ++i) {
      const Candidate next{row_[i], static_cast<std::int32_t>(first_ + static_cast<std::int64_t>(i))};
      if (best.back().id >= 0 && !better(next, best.back())) continue;
      auto place = std::ranges::find_if(best, [&](const Candidate& c) { return c.id < 0 || better(next, c); });
      std::move_backward(place, best.end() - 1, best.end());
      *place = next;
    }
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
    Part() { best.fill({0, -1}); }
    float max = -std::numeric_limits<float>::infinity(), drawn = max;
    double sum = 0;
    std::array<Candidate, most_likeliest> best;
  };
  static_assert(std::is_trivially_copyable_v<Part>);

  Communication* communication_;
  std::vector<float> row_;  // kept, so that it is allocated once
  std::int64_t first_ = 0;
  std::vector<Part> all_;
};

}  // namespace troika
