// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <troika/layers/sampler.hpp>
#include <troika/models/decoder.hpp>

namespace troika::models {

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  SamplingOptions sampling{};
};

// Draws tokens after the prompt until one ends the text, max_tokens are drawn or the context is full; gives them without
// the ending one. Collective: every rank calls it with the same arguments and gets the same tokens. `on_token` is called
// on every rank as each token is drawn. The prompt may not fill the context.
template <class Pipeline, Device D, class OnToken>
std::vector<std::int32_t> generate(Pipeline& pipeline, const Decoder<D>& model, KvCache<D>& cache,
                                   std::span<const std::int32_t> prompt, const GenerateOptions& options, OnToken on_token) {
  const auto length = static_cast<std::int64_t>(prompt.size());
  const auto room = cache.capacity() - cache.length() - length;
  expects(length >= 1 && room >= 1, [&] {
    return "a prompt of " + std::to_string(length) + " tokens does not fit a context of " +
           std::to_string(cache.capacity()) + ", of which " + std::to_string(cache.length()) +
           " are used; the prompt is 1 token or more and leaves room for 1";
  });
  expects(options.max_tokens >= 1,
          [&] { return "max_tokens is at least 1, not " + std::to_string(options.max_tokens); });
  const auto most = static_cast<std::size_t>(std::min(options.max_tokens, room));
  Sampler sampler(pipeline.communication(), options.sampling);
  const auto& ends = model.config().eos_token_ids;

  std::vector<std::int32_t> tokens;
  tokens.reserve(most);
  auto logits = model.forward(pipeline, prompt, cache);
  while (true) {
    const auto token = sampler(logits, tokens.size(), pipeline.stream());
    if (std::ranges::find(ends, token) != ends.end()) break;
    tokens.push_back(token);
    on_token(token);
    if (tokens.size() == most) break;
    logits = model.forward(pipeline, std::span(&tokens.back(), 1), cache);
  }
  return tokens;
}

template <class Pipeline, Device D>
std::vector<std::int32_t> generate(Pipeline& pipeline, const Decoder<D>& model, KvCache<D>& cache,
                                   std::span<const std::int32_t> prompt, const GenerateOptions& options = {}) {
  return generate(pipeline, model, cache, prompt, options, [](std::int32_t) {});
}

}  // namespace troika::models
