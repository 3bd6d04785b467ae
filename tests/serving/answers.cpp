// SPDX-License-Identifier: Apache-2.0
#include "answers.hpp"

#include <random>
#include <span>

#include <support/spmd.hpp>

#include <troika/layers/sampler.hpp>
#include <troika/models/decoder.hpp>

TinyModel long_model(const std::string& type) {
  auto tiny = TinyModel::make(type, 41);
  tiny.positions = 400;
  return tiny;
}

std::vector<troika::serving::GenerationRequest> mixed_requests(std::size_t count) {
  std::mt19937 random(7);
  const auto below = [&](std::uint32_t limit) { return static_cast<std::int32_t>(random() % limit); };
  std::vector<troika::serving::GenerationRequest> requests(count);
  for (auto& request : requests) {
    const bool shares = below(3) == 0;  // its beginning with others
    request.prompt.assign(static_cast<std::size_t>(shares ? 200 : 1), 5);
    for (auto more = below(100) + 1; more > 0; --more) request.prompt.push_back(below(101));
    request.max_tokens = 1 + below(40);
    request.ends = {2};
    if (below(2) == 0)
      request.sampling = {.temperature = 0.8f, .top_k = below(2) * 12, .top_p = 0.9f, .seed = random()};
    if (below(3) == 0) request.sampling.repeat_penalty = 1.3f;
  }
  return requests;
}

std::vector<Tokens> alone(const LoadedModel& model, const std::vector<troika::serving::GenerationRequest>& requests) {
  return spmd(1, [&](auto& pipeline) {
    const troika::models::Decoder decoder(pipeline, model.config, model.weights);
    auto cache = decoder.make_cache(pipeline.device());
    std::vector<Tokens> answers;
    for (const auto& request : requests) {
      cache.truncate(0);
      troika::Sampler sampler(pipeline.communication(), request.sampling);
      Tokens text = request.prompt;
      auto logits = decoder.forward(pipeline, text, cache);
      while (static_cast<std::int64_t>(text.size() - request.prompt.size()) < request.max_tokens) {
        sampler.penalise(logits, text, pipeline.stream());
        const auto token = sampler(logits, text.size() - request.prompt.size(), pipeline.stream());
        if (token == 2) break;
        text.push_back(token);
        logits = decoder.forward(pipeline, std::span(&token, 1), cache);
      }
      answers.emplace_back(text.begin() + static_cast<std::ptrdiff_t>(request.prompt.size()), text.end());
    }
    return answers;
  })[0];
}
