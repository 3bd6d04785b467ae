// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/layers/sampler.hpp>
#include <troika/models/decoder.hpp>
#include <troika/models/generate.hpp>
#include <troika/models/text/tokenizer.hpp>

namespace troika::models {

// A model reads up to this many tokens at once with the kernels, and the rounding of activations, that it reads one
// with.
inline constexpr int most_guesses = 15;

inline void check_guesses(int guesses) {
  expects(guesses >= 1 && guesses <= most_guesses, [&] {
    return "guesses at a time are 1 to " + std::to_string(most_guesses) + ", not " + std::to_string(guesses);
  });
}

struct PromptLookupOptions {
  int guesses = 8;  // at a time
  int match = 3;    // tokens that must agree, at most; fewer where nothing agrees with so many
};

// Guesses that the text repeats itself: finds the last place where the latest tokens were seen before, and proposes
// what followed there. It costs nothing but the longer pass, and pays where answers quote their prompt (A. Saxena's
// prompt lookup decoding, 2023).
class PromptLookup {
 public:
  explicit PromptLookup(PromptLookupOptions options = {}) : options_(options) {
    check_guesses(options.guesses);
    expects(options.match >= 1, [&] { return "a match is 1 token or more, not " + std::to_string(options.match); });
  }

  std::span<const std::int32_t> operator()(std::span<const std::int32_t> seen, std::uint64_t, std::size_t most) {
    guesses_.clear();
    most = std::min(most, static_cast<std::size_t>(options_.guesses));
    for (auto match = std::min(static_cast<std::size_t>(options_.match), seen.size()); match > 0 && most > 0; --match) {
      const auto latest = seen.last(match), earlier = seen.first(seen.size() - 1);
      const auto found = std::find_end(earlier.begin(), earlier.end(), latest.begin(), latest.end());
      if (found == earlier.end()) continue;
      // What follows may run into the guesses themselves: a text that goes round in circles.
      const auto next = static_cast<std::size_t>(found - earlier.begin()) + match;
      for (std::size_t i = 0; i < most; ++i) {
        guesses_.push_back(next + i < seen.size() ? seen[next + i] : guesses_[next + i - seen.size()]);
      }
      break;
    }
    return guesses_;
  }

 private:
  PromptLookupOptions options_;
  std::vector<std::int32_t> guesses_;
};
static_assert(Proposer<PromptLookup>);

// Guesses with a smaller model of the same vocabulary, on the same ranks. It draws as the large model does, with the
// same noise, so that sampled guesses agree where the models do. Keeps a cache of its own, which is cut where guesses
// were wrong. Past the end of its context, and at tokens that it does not know, it guesses nothing. The sampling
// options are those of the model that it guesses for.
template <class Pipeline, Device D>
class DraftModel {
 public:
  DraftModel(Pipeline& pipeline, const Decoder<D>& model, const SamplingOptions& sampling, int guesses = 5)
      : pipeline_(&pipeline),
        model_(&model),
        cache_(model.make_cache(pipeline.device())),
        sampler_(pipeline.communication(), sampling),
        guesses_at_a_time_(static_cast<std::size_t>(guesses)) {
    check_guesses(guesses);
  }

  std::span<const std::int32_t> operator()(std::span<const std::int32_t> seen, std::uint64_t drawn, std::size_t most) {
    guesses_.clear();
    // One token at least is read anew: its logits are the guess.
    const auto kept =
        static_cast<std::size_t>(std::ranges::mismatch(read_, seen.first(seen.size() - 1)).in1 - read_.begin());
    read_.resize(kept);
    cache_.truncate(static_cast<std::int64_t>(kept));
    const auto fits = static_cast<std::size_t>(
        std::max<std::int64_t>(0, cache_.capacity() - static_cast<std::int64_t>(seen.size()) + 1));
    most = std::min({most, guesses_at_a_time_, fits});
    const auto fresh = seen.subspan(kept);
    if (most == 0 || !std::ranges::all_of(fresh, [&](auto id) { return known(id); })) return guesses_;

    auto logits = read(fresh);
    while (true) {
      guesses_.push_back(sampler_(logits, drawn + guesses_.size(), pipeline_->stream()));
      const auto& ends = model_->config().eos_token_ids;
      if (guesses_.size() == most || std::ranges::find(ends, guesses_.back()) != ends.end()) return guesses_;
      logits = read(std::span(&guesses_.back(), 1));
    }
  }

 private:
  bool known(std::int32_t id) const { return id >= 0 && id < model_->config().vocab_size; }

  auto read(std::span<const std::int32_t> ids) {
    auto logits = model_->forward(*pipeline_, ids, cache_);
    read_.insert(read_.end(), ids.begin(), ids.end());
    return logits;
  }

  Pipeline* pipeline_;
  const Decoder<D>* model_;
  KvCache<D> cache_;
  Sampler<std::remove_reference_t<decltype(std::declval<Pipeline&>().communication())>> sampler_;
  std::size_t guesses_at_a_time_;
  std::vector<std::int32_t> read_, guesses_;  // read_: the tokens that the cache holds
};
template <class Pipeline, Device D>
DraftModel(Pipeline&, const Decoder<D>&, const SamplingOptions&, int = 5) -> DraftModel<Pipeline, D>;

// A draft model guesses ids, so they must stand for the same tokens. Error{invalid_argument} that names the first which
// does not. Rows that pad a model's vocabulary may differ.
inline void check_same_vocabulary(const Tokenizer& target, const Tokenizer& draft) {
  const auto spelled = [](const std::string& token) { return token.empty() ? "no token" : "\"" + token + "\""; };
  expects(target.vocab_size() == draft.vocab_size(), [&] {
    return "the draft model has a vocabulary of " + std::to_string(draft.vocab_size()) + " tokens, the model one of " +
           std::to_string(target.vocab_size()) + "; a draft model has the model's vocabulary";
  });
  for (std::int32_t id = 0; id < target.vocab_size(); ++id) {
    expects(target.token_of(id) == draft.token_of(id), [&] {
      return "token " + std::to_string(id) + " is " + spelled(draft.token_of(id)) + " to the draft model and " +
             spelled(target.token_of(id)) + " to the model; a draft model has the model's vocabulary";
    });
  }
}

}  // namespace troika::models
