// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/spmd.hpp>
#include <support/tiny_model.hpp>

#include <troika/device/host/topology.hpp>
#include <troika/models/decoder.hpp>
#include <troika/serving/engine.hpp>

using Tokens = std::vector<std::int32_t>;

inline std::vector<troika::HostDevice> exact_devices(int count) {
  return troika::host_devices(count, {.precision = troika::Precision::exact});
}

// A request under way, and what it got.
class Answer {
 public:
  Answer(troika::serving::Engine& engine, troika::serving::GenerationRequest request)
      : shared_(std::make_shared<Shared>()) {
    generation_ =
        engine.start(std::move(request),
                     {[shared = shared_](std::int32_t token) {
                        shared->tokens.push_back(token);
                        ++shared->count;
                      },
                      [shared = shared_](const troika::serving::GenerationEnd& end) { shared->end.set_value(end); }});
    end_ = shared_->end.get_future();
  }
  troika::serving::GenerationEnd end() {
    REQUIRE(end_.wait_for(std::chrono::seconds(60)) == std::future_status::ready);
    return end_.get();
  }
  const Tokens& tokens() const { return shared_->tokens; }  // after end()
  std::size_t count() const { return shared_->count; }
  void cancel() { generation_->cancel(); }

 private:
  struct Shared {
    Tokens tokens;
    std::atomic<std::size_t> count{0};
    std::promise<troika::serving::GenerationEnd> end;  // throws when it is set twice
  };
  std::shared_ptr<Shared> shared_;
  std::shared_ptr<troika::serving::Generation> generation_;
  std::future<troika::serving::GenerationEnd> end_;
};

inline TinyModel long_model(const std::string& type) {
  auto tiny = TinyModel::make(type, 41);
  tiny.positions = 400;
  return tiny;
}

inline std::vector<troika::serving::GenerationRequest> mixed_requests(std::size_t count) {
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

// What the library draws for each request by itself.
inline std::vector<Tokens> alone(const LoadedModel& model,
                                 const std::vector<troika::serving::GenerationRequest>& requests) {
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
