// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <troika/communication/threads.hpp>
#include <troika/models/encoder.hpp>
#include <troika/serving/model_run.hpp>

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
      : encoder_(pipeline, model.config, model.weights, options.progress) {}

  template <class Pipeline>
  void take(Pipeline& pipeline, const Step& step, Taken& taken) {
    const std::vector<std::span<const std::int32_t>> ids(step.texts.begin(), step.texts.end());
    taken = encoder_.embed(pipeline, ids);
  }

 private:
  models::Encoder<D> encoder_;
};

}  // namespace troika::serving
