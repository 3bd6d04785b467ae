// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/threads.hpp>
#include <troika/device/candidate.hpp>
#include <troika/layers/logprobs.hpp>
#include <troika/layers/sampler.hpp>
#include <troika/models/batch.hpp>
#include <troika/models/decoder.hpp>
#include <troika/models/grammar/token_mask.hpp>
#include <troika/serving/model_run.hpp>
#include <troika/serving/step.hpp>
#include <troika/sync/chunking.hpp>

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

  // Passes as large as they get, and smaller ones, down to where blocks of the pool that are lent for less do for them.
  template <class Pipeline>
  void warm_up(Pipeline& pipeline, const EngineOptions& options) {
    for (auto tokens = options.step_tokens; tokens > 1; tokens /= 16)
      (void)pass(pipeline, tokens, decoder_.context(), 0);
    (void)pass(pipeline, options.most_running, 1, decoder_.context() - 1);

    const auto logits = pass(pipeline, 1, 1, 0);  // they are there while a token is drawn, as if all were as likely
    auto& stream = pipeline.stream();
    Tensor<float, D> equal(stream.device(), logits.local().shape());
    fill_zero(stream, equal.view());
    (void)read_back(stream, equal.view());
    std::array<Candidate, 64> best;
    (void)top_candidates(stream, equal.span(), 0, std::span(best));
  }

  // A pass of each size that products are timed for.
  template <class Pipeline>
  void time_products(Pipeline& pipeline, const EngineOptions& options) {
    for (auto tokens = options.step_tokens; tokens >= Chunking::fewest_rows; tokens /= 2)
      (void)pass(pipeline, tokens, decoder_.context(), 0);
  }

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

  // So many tokens of texts that nobody wants, in pieces of up to `most` after `cached` that were never there.
  template <class Pipeline>
  auto pass(Pipeline& pipeline, std::int64_t tokens, std::int64_t most, std::int64_t cached) {
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(most));
    std::vector<std::vector<std::int32_t>> pages(static_cast<std::size_t>(memory_.pages()));  // one for each text
    models::Batch batch;
    for (std::size_t i = 0; i < pages.size() && batch.tokens() < tokens; ++i) {
      const auto count = std::min(most, tokens - batch.tokens());
      pages[i].assign(static_cast<std::size_t>((cached + count + kv_page - 1) / kv_page), static_cast<std::int32_t>(i));
      batch.add(std::span(ids).first(static_cast<std::size_t>(count)), cached, pages[i]);
    }
    return decoder_.forward(pipeline, batch, memory_);
  }

  models::Decoder<D> decoder_;
  KvMemory<D> memory_;
  std::optional<Sampler<Communicator>> sampler_;
  std::optional<Logprobs<Communicator>> logprobs_;
  std::optional<models::TokenMask> mask_;
};

}  // namespace troika::serving
