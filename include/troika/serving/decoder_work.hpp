// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/threads.hpp>
#include <troika/layers/logprobs.hpp>
#include <troika/layers/sampler.hpp>
#include <troika/models/decoder.hpp>
#include <troika/models/grammar/token_mask.hpp>
#include <troika/serving/model_run.hpp>
#include <troika/serving/step.hpp>

namespace troika::serving {

// A decoder on one rank of a run: reads what a step has of texts, and draws tokens, the same on all ranks.
template <troika::Device D, class T = Threads>
class DecoderWork {
 public:
  using Device = D;
  using Transport = T;
  using Step = serving::Step;
  struct Taken {
    std::vector<std::int32_t> tokens;     // of each draw
    std::vector<TokenLogprobs> logprobs;  // of those that ask
  };

  template <class Pipeline>
  DecoderWork(Pipeline& pipeline, const RunModel& model, const EngineOptions& options)
      : decoder_(pipeline, model.config, model.weights,
                 models::DecoderOptions{.context = model.context, .kv_type = options.kv_type}, options.progress),
        memory_(decoder_.make_memory(pipeline.device(), model.pages)) {}

  template <class Pipeline>
  void take(Pipeline& pipeline, const Step& step, Taken& taken) {
    auto& communication = pipeline.communication();
    if (!sampler_) sampler_.emplace(communication), logprobs_.emplace(communication);
    taken.tokens.clear();
    taken.logprobs.clear();
    auto logits = decoder_.forward(pipeline, step.batch(), memory_);
    for (const auto& draw : step.draws()) {
      const auto row = static_cast<std::int64_t>(taken.tokens.size());
      if (draw.logprobs) logprobs_->keep(logits, row, pipeline.stream());
      sampler_->set(draw.sampling);
      sampler_->penalise(logits, draw.seen, pipeline.stream(), row);
      if (const auto& constrained = draw.constrained) {
        const auto part = logits.partition()[communication.rank()];
        if (!mask_ || mask_->tokens() != constrained->tokens) mask_.emplace(constrained->tokens, part.begin, part.end);
        change_on_host(pipeline.stream(), logits.local().rows(row, row + 1),
                       [&](std::span<float> shard) { mask_->apply(constrained->state, constrained->ends, shard); });
      }
      taken.tokens.push_back((*sampler_)(logits, draw.drawn, pipeline.stream(), row));
      if (draw.logprobs) taken.logprobs.push_back(logprobs_->of(taken.tokens.back(), *draw.logprobs));
    }
  }

 private:
  using Communicator = Communication<T, D>;

  models::Decoder<D> decoder_;
  KvMemory<D> memory_;
  std::optional<Sampler<Communicator>> sampler_;
  std::optional<Logprobs<Communicator>> logprobs_;
  std::optional<models::TokenMask> mask_;
};

}  // namespace troika::serving
