// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/layers/sampler.hpp>
#include <troika/models/decoder.hpp>

namespace troika::models {

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  SamplingOptions sampling{};
};

// What guesses the next tokens, so that the model checks several in one pass (speculation.hpp has two). Given the
// tokens so far, how many of them were drawn, and how many guesses are of use, it gives at most that many, the same on
// every rank. Wrong guesses cost time only; from one that ends the text, or is no token, none is looked at.
template <class P>
concept Proposer = requires(P& proposer, std::span<const std::int32_t> seen, std::uint64_t drawn, std::size_t most) {
  { proposer(seen, drawn, most) } -> std::convertible_to<std::span<const std::int32_t>>;
};

// Plain decoding: nothing is guessed, one token a pass.
struct NoProposals {
  std::span<const std::int32_t> operator()(std::span<const std::int32_t>, std::uint64_t, std::size_t) { return {}; }
};
static_assert(Proposer<NoProposals>);

struct Generated {
  std::vector<std::int32_t> tokens;
  // Of speculation: tokens that were guessed, those of them that are among `tokens`, and passes of the model after the
  // prompt's.
  std::int64_t proposed = 0, accepted = 0, steps = 0;
};

// Draws tokens after the prompt until one ends the text, max_tokens are drawn or the context is full; gives them
// without the ending one. Collective: every rank calls it with the same arguments and gets the same tokens. `on_token`
// is called on every rank as each token is drawn. The prompt may not fill the context. The cache then holds what was
// read: the prompt and the tokens, but the last where max_tokens or the context ended the text.
//
// A guess counts where it is the token that is drawn at its place, and noise belongs to the place and the token: the
// tokens are those of plain decoding, sampled ones too. What may differ is rounding, as sums over several tokens at
// once add in another order than over one: where two candidates are closer than that, the other one may win.
template <class Pipeline, Device D, Proposer Guess, class OnToken>
Generated speculate(Pipeline& pipeline, const Decoder<D>& model, KvCache<D>& cache,
                    std::span<const std::int32_t> prompt, const GenerateOptions& options, Guess& guess,
                    OnToken on_token) {
  const auto length = static_cast<std::int64_t>(prompt.size());
  const auto room = cache.capacity() - cache.length() - length;
  expects(length >= 1 && room >= 1, [&] {
    return "a prompt of " + std::to_string(length) + " tokens does not fit a context of " +
           std::to_string(cache.capacity()) + ", of which " + std::to_string(cache.length()) +
           " are used; the prompt is 1 token or more and leaves room for 1";
  });
  expects(options.max_tokens >= 1,
          [&] { return "max_tokens is at least 1, not " + std::to_string(options.max_tokens); });
  const auto most = prompt.size() + static_cast<std::size_t>(std::min(options.max_tokens, room));
  Sampler sampler(pipeline.communication(), options.sampling);
  const auto& ends = model.config().eos_token_ids;

  std::vector<std::int32_t> seen(prompt.begin(), prompt.end()), batch;  // batch: the last token, and guesses
  seen.reserve(most);
  Generated result;
  const auto ends_text = [&](std::int32_t id) { return std::ranges::find(ends, id) != ends.end(); };
  const auto useless = [&](std::int32_t id) { return id < 0 || id >= model.config().vocab_size || ends_text(id); };
  const auto draw = [&](auto&& logits, std::int64_t row) {
    sampler.penalise(logits, seen, pipeline.stream(), row);
    const auto token = sampler(logits, seen.size() - prompt.size(), pipeline.stream(), row);
    if (ends_text(token)) return false;
    seen.push_back(token);
    on_token(token);
    return seen.size() < most;
  };
  bool more = draw(model.forward(pipeline, prompt, cache), 0);
  while (more) {
    const std::span<const std::int32_t> guesses = guess(seen, seen.size() - prompt.size(), most - seen.size() - 1);
    batch.assign(1, seen.back());
    batch.insert(batch.end(), guesses.begin(), std::ranges::find_if(guesses, useless));
    const auto before = cache.length(), rows = static_cast<std::int64_t>(batch.size());
    auto logits = model.forward(pipeline, batch, cache, rows);
    result.steps += 1;
    result.proposed += rows - 1;
    std::int64_t row = 0;
    while ((more = draw(logits, row)) && row + 1 < rows && seen.back() == batch[static_cast<std::size_t>(row) + 1])
      ++row;
    result.accepted += row;
    cache.truncate(before + row + 1);
  }
  result.tokens.assign(seen.begin() + length, seen.end());
  return result;
}

template <class Pipeline, Device D, class OnToken>
std::vector<std::int32_t> generate(Pipeline& pipeline, const Decoder<D>& model, KvCache<D>& cache,
                                   std::span<const std::int32_t> prompt, const GenerateOptions& options,
                                   OnToken on_token) {
  NoProposals nothing;
  return speculate(pipeline, model, cache, prompt, options, nothing, std::move(on_token)).tokens;
}

template <class Pipeline, Device D>
std::vector<std::int32_t> generate(Pipeline& pipeline, const Decoder<D>& model, KvCache<D>& cache,
                                   std::span<const std::int32_t> prompt, const GenerateOptions& options = {}) {
  return generate(pipeline, model, cache, prompt, options, [](std::int32_t) {});
}

}  // namespace troika::models
