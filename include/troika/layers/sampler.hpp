// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/transport.hpp>
#include <troika/device/candidate.hpp>
#include <troika/sync/dtensor.hpp>

namespace troika {

struct SamplingOptions {
  float temperature = 0;  // 0: the most likely token
  int top_k = 0;          // keep the k most likely; 0: all
  float top_p = 1;        // keep the smallest set of most likely tokens with this probability in all
  float min_p = 0;        // keep tokens with at least this part of the probability of the most likely one
  std::uint64_t seed = 0;
  // Against repeats, before all else, of the tokens among the last `repeat_last_n` (-1: all; 0: none): their logits are
  // divided by repeat_penalty where positive and multiplied where not (arXiv 1909.05858), then lowered by
  // presence_penalty and by frequency_penalty for each time that they are there.
  int repeat_last_n = 64;
  float repeat_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
};

// Draws a token from logits that are split over the vocabulary. The ranks exchange candidates and a few sums, never the
// vocabulary; every rank draws the same token. The noise belongs to the token, not to the rank, so that the world size
// changes nothing but the rounding of sums. A logit that is NaN is an Error on the rank that holds it. Collective.
template <class Communication>
class Sampler {
 public:
  static constexpr int most_candidates = 1024;  // top_k may not ask for more

  explicit Sampler(Communication& communication, const SamplingOptions& options = {}) : communication_(&communication) {
    set(options);
  }

  // Draws by these options from now on. Error{invalid_argument} names what is out of range.
  void set(const SamplingOptions& options) {
    check(options);
    options_ = options;
    const int wanted = options.temperature == 0 ? 1 : options.top_k > 0 ? options.top_k : 1;
    mine_.resize(static_cast<std::size_t>(wanted));
    all_.resize(mine_.size() * static_cast<std::size_t>(communication_->world_size()));
  }

  static void check(const SamplingOptions& options) {
    expects(options.temperature >= 0 && std::isfinite(options.temperature),
            [&] { return "a temperature is finite and at least 0, not " + std::to_string(options.temperature); });
    expects(options.top_k >= 0 && options.top_k <= most_candidates, [&] {
      return "top_k is from 0 (all) to " + std::to_string(most_candidates) + ", not " + std::to_string(options.top_k);
    });
    expects(options.top_p > 0 && options.top_p <= 1,
            [&] { return "top_p is above 0 and at most 1, not " + std::to_string(options.top_p); });
    expects(options.min_p >= 0 && options.min_p <= 1,
            [&] { return "min_p is from 0 to 1, not " + std::to_string(options.min_p); });
    expects(options.repeat_last_n >= -1, [&] {
      return "repeat_last_n is -1 (all), 0 (none) or more, not " + std::to_string(options.repeat_last_n);
    });
    expects(options.repeat_penalty > 0 && std::isfinite(options.repeat_penalty) &&
                std::isfinite(options.presence_penalty) && std::isfinite(options.frequency_penalty),
            "penalties are finite, and repeat_penalty is above 0");
  }

  // Applies the penalties to one row of logits, in place, for the tokens of the text so far; before drawing from it.
  template <Device D, class S>
  void penalise(DTensor<float, Shard<1>, D>& logits, std::span<const std::int32_t> seen, S& stream,
                std::int64_t row = 0) {
    if (options_.repeat_penalty == 1 && options_.presence_penalty == 0 && options_.frequency_penalty == 0) return;
    if (options_.repeat_last_n >= 0)
      seen = seen.last(std::min(seen.size(), static_cast<std::size_t>(options_.repeat_last_n)));
    const auto range = logits.partition()[communication_->rank()];
    recent_.assign(seen.begin(), seen.end());
    std::ranges::sort(recent_);
    change_on_host(stream, logits.local().rows(row, row + 1), [&](std::span<float> shard) {
      for (auto i = recent_.begin(); i != recent_.end();) {
        const auto last = std::find_if(i, recent_.end(), [&](std::int32_t id) { return id != *i; });
        if (*i >= range.begin && *i < range.end) {
          float& logit = shard[static_cast<std::size_t>(*i - range.begin)];
          logit = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
          logit -= options_.presence_penalty + options_.frequency_penalty * static_cast<float>(last - i);
        }
        i = last;
      }
    });
  }

  // Draws from one row of logits (tokens, vocabulary); step: how many tokens were drawn before. Logits that are not
  // numbers are an Error on every rank.
  template <Device D, class S>
  std::int32_t operator()(const DTensor<float, Shard<1>, D>& logits, std::uint64_t step, S& stream,
                          std::int64_t row = 0) {
    expects(logits.shape().dims() == 2 && row >= 0 && row < logits.shape()[0], [&] {
      return "a sampler draws from row " + std::to_string(row) + " of (tokens, vocabulary), not of " +
             logits.shape().to_string();
    });
    const auto logits_here = logits.local().rows(row, row + 1);
    const std::int64_t first = logits.partition()[communication_->rank()].begin;
    if (options_.temperature == 0) return merged(logits_here.span(), first, stream).front().id;
    if (options_.top_k > 0) return draw(merged(logits_here.span(), first, stream), step);
    const auto on_host = read_back(stream, logits_here);
    const std::span<const float> shard = on_host.span();
    float floor = -INFINITY;
    if (options_.top_p < 1 || options_.min_p > 0) {
      const float largest = largest_of(shard);
      if (options_.top_p < 1) floor = nucleus_floor(shard, largest);
      floor = std::max(floor, least_likely(largest));
    }
    // Gumbel-max: the argmax of logit / T + noise has the softmax distribution, whoever computes it; each rank sends
    // one.
    Candidate best = none;
    for (std::size_t i = 0; i < shard.size(); ++i) {
      if (shard[i] < floor) continue;
      expects(!std::isnan(shard[i]),
              [&] { return "the logit of token " + std::to_string(first + static_cast<std::int64_t>(i)) + " is NaN"; });
      const auto id = static_cast<std::int32_t>(first + static_cast<std::int64_t>(i));
      const Candidate scored{shard[i] / options_.temperature + gumbel(step, id), id};
      if (ahead(scored, best)) best = scored;
    }
    mine_[0] = best;
    exchange();
    return std::ranges::min_element(all_, ahead)->id;
  }

 private:
  static constexpr Candidate none{-INFINITY, -1};  // an empty slot: a shard may be smaller than the wish

  static bool ahead(const Candidate& a, const Candidate& b) {
    return a.id < 0 || b.id < 0 ? b.id < 0 && a.id >= 0 : better(a, b);
  }

  // The best candidates of all ranks, best first.
  template <class S>
  std::span<Candidate> merged(std::span<const float> shard, std::int64_t first, S& stream) {
    const auto found = top_candidates(stream, shard, first, std::span(mine_));
    std::fill(mine_.begin() + static_cast<std::ptrdiff_t>(found), mine_.end(), none);
    exchange();
    std::ranges::sort(all_, ahead);
    std::size_t kept = 0;
    while (kept < mine_.size() && all_[kept].id >= 0) ++kept;
    return std::span(all_).first(kept);
  }

  void exchange() {
    communication_->all_gather(
        std::span(reinterpret_cast<const std::uint8_t*>(mine_.data()), mine_.size() * sizeof(Candidate)),
        std::span(reinterpret_cast<std::uint8_t*>(all_.data()), all_.size() * sizeof(Candidate)));
  }

  // Top-k candidates, cut to top_p of their own mass, as Hugging Face chains the two.
  std::int32_t draw(std::span<Candidate> candidates, std::uint64_t step) const {
    double total = 0;
    for (const auto& c : candidates) total += weight(c.logit, candidates[0].logit);
    Candidate best = none;
    double before = 0;
    for (const auto& c : candidates) {
      if ((before >= options_.top_p * total || c.logit < least_likely(candidates[0].logit)) && best.id >= 0) break;
      before += weight(c.logit, candidates[0].logit);
      const Candidate scored{c.logit / options_.temperature + gumbel(step, c.id), c.id};
      if (ahead(scored, best)) best = scored;
    }
    return best.id;
  }

  // The largest threshold t such that the tokens with logit >= t hold top_p of the probability, by bisection over the
  // order of floats: 32 rounds, each a scan of the shard and one small all_reduce.
  float nucleus_floor(std::span<const float> shard, float largest) {
    const auto mass_from = [&](float floor) {
      double sum = 0;
      for (const float logit : shard)
        if (logit >= floor) sum += weight(logit, largest);
      float mass = static_cast<float>(sum);
      communication_->all_reduce(std::span(&mass, 1));
      return mass;
    };
    const float wanted = options_.top_p * mass_from(-INFINITY);
    std::int32_t low = ordered(-INFINITY), high = ordered(largest);  // mass_from(low) >= wanted always
    while (low < high) {
      const auto middle = static_cast<std::int32_t>(low + (static_cast<std::int64_t>(high) - low + 1) / 2);
      if (mass_from(unordered(middle)) >= wanted)
        low = middle;
      else
        high = middle - 1;
    }
    return unordered(low);
  }

  // Of all ranks.
  float largest_of(std::span<const float> shard) {
    float largest = -INFINITY;
    for (const float logit : shard) largest = std::max(largest, logit);
    communication_->all_reduce(std::span(&largest, 1), Reduction::max);
    return largest;
  }
  // The smallest logit that min_p lets pass.
  float least_likely(float largest) const {
    return options_.min_p > 0 ? largest + options_.temperature * std::log(options_.min_p) : -INFINITY;
  }

  double weight(float logit, float largest) const { return std::exp((double{logit} - largest) / options_.temperature); }

  // Floats as integers of the same order, and back.
  static std::int32_t ordered(float x) {
    const auto bits = std::bit_cast<std::int32_t>(x);
    return bits < 0 ? static_cast<std::int32_t>(0x80000000u - static_cast<std::uint32_t>(bits)) : bits;
  }
  static float unordered(std::int32_t x) {
    return std::bit_cast<float>(x < 0 ? static_cast<std::int32_t>(0x80000000u - static_cast<std::uint32_t>(x)) : x);
  }

  // Noise that depends on the seed, the step and the token alone: a counter-based generator (splitmix64's finaliser).
  float gumbel(std::uint64_t step, std::int32_t id) const {
    std::uint64_t z = mix(mix(options_.seed + 0x9e3779b97f4a7c15u) ^ step) ^ static_cast<std::uint64_t>(id);
    const double uniform = (static_cast<double>(mix(z) >> 11) + 0.5) * 0x1p-53;  // inside of (0, 1)
    return static_cast<float>(-std::log(-std::log(uniform)));
  }
  static std::uint64_t mix(std::uint64_t z) {
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  Communication* communication_;
  SamplingOptions options_;
  std::vector<Candidate> mine_, all_;  // kept so that drawing allocates nothing
  std::vector<std::int32_t> recent_;
};

}  // namespace troika
