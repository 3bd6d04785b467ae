// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/tiny_model.hpp>

#include <troika/device/host/topology.hpp>
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
                      [shared = shared_](const troika::serving::GenerationEnd& end) { shared->end.set_value(end); },
                      [shared = shared_](const troika::TokenLogprobs& one) { shared->logprobs.push_back(one); }});
    end_ = shared_->end.get_future();
  }
  troika::serving::GenerationEnd end() {
    REQUIRE(end_.wait_for(std::chrono::seconds(60)) == std::future_status::ready);
    return end_.get();
  }
  const Tokens& tokens() const { return shared_->tokens; }  // after end()
  const std::vector<troika::TokenLogprobs>& logprobs() const { return shared_->logprobs; }
  std::size_t count() const { return shared_->count; }
  void cancel() { generation_->cancel(); }

 private:
  struct Shared {
    Tokens tokens;
    std::vector<troika::TokenLogprobs> logprobs;
    std::atomic<std::size_t> count{0};
    std::promise<troika::serving::GenerationEnd> end;  // throws when it is set twice
  };
  std::shared_ptr<Shared> shared_;
  std::shared_ptr<troika::serving::Generation> generation_;
  std::future<troika::serving::GenerationEnd> end_;
};

// A small model that takes texts of 400 tokens.
TinyModel long_model(const std::string& type);

std::vector<troika::serving::GenerationRequest> mixed_requests(std::size_t count);

// What the library draws for each request by itself.
std::vector<Tokens> alone(const LoadedModel& model, const std::vector<troika::serving::GenerationRequest>& requests);
