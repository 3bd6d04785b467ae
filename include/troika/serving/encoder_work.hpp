// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include <troika/communication/threads.hpp>
#include <troika/models/encoder.hpp>
#include <troika/serving/model_run.hpp>
#include <troika/sync/chunking.hpp>

namespace troika::serving {

// An encoder on one rank of a run: embeds the texts of a step.
template <troika::Device D, class T = Threads>
class EncoderWork {
 public:
  using Device = D;
  using Transport = T;
  struct Step {
    std::vector<std::vector<std::int32_t>> texts;
    bool empty() const { return texts.empty(); }
  };
  using Taken = std::vector<std::vector<float>>;  // of each text

  template <class Pipeline>
  EncoderWork(Pipeline& pipeline, const RunModel& model, const EngineOptions& options)
      : context_(model.context), encoder_(pipeline, model.config, model.weights, options.progress) {}

  // Passes as large as they get, and smaller ones, down to where blocks of the pool that are lent for less do for them.
  template <class Pipeline>
  void warm_up(Pipeline& pipeline, const EngineOptions& options) {
    for (auto tokens = options.step_tokens; tokens >= 1; tokens /= 16) pass(pipeline, tokens);
  }

  // A pass of each size that products are timed for.
  template <class Pipeline>
  void time_products(Pipeline& pipeline, const EngineOptions& options) {
    for (auto tokens = options.step_tokens; tokens >= Chunking::fewest_rows; tokens /= 2) pass(pipeline, tokens);
  }

  template <class Pipeline>
  void take(Pipeline& pipeline, const Step& step, Taken& taken) {
    const std::vector<std::span<const std::int32_t>> ids(step.texts.begin(), step.texts.end());
    taken = encoder_.embed(pipeline, ids);
  }

 private:
  template <class Pipeline>
  void pass(Pipeline& pipeline, std::int64_t tokens) {
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(context_));
    std::vector<std::span<const std::int32_t>> texts;
    for (auto left = tokens; left > 0; left -= context_)
      texts.push_back(std::span(ids).first(static_cast<std::size_t>(std::min(left, context_))));
    (void)encoder_.forward(pipeline, texts);
  }

  std::int64_t context_;
  models::Encoder<D> encoder_;
};

}  // namespace troika::serving
