// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/serving/engine.hpp>

namespace stress {

namespace serving = troika::serving;
using Clock = serving::Clock;
using Seconds = std::chrono::duration<double>;

// A kind of request: how often it comes among the others, and how long it is.
struct Scenario {
  double weight = 1;
  std::int64_t prompt = 1, answer = 1;  // tokens

  // "40:128/32" is a weight of 40, a prompt of 128 tokens and an answer of 32.
  static Scenario parse(const std::string& text) {
    Scenario scenario;
    int used = 0;
    long long prompt = 0, answer = 0;
    const bool whole = std::sscanf(text.c_str(), "%lf:%lld/%lld%n", &scenario.weight, &prompt, &answer, &used) == 3 &&
                       used == static_cast<int>(text.size());
    if (!whole || !(scenario.weight > 0 && scenario.weight < 1e9) || prompt < 1 || answer < 1) {
      throw troika::Error(
          troika::Fault::invalid_argument,
          "--mix takes WEIGHT:PROMPT/ANSWER of each scenario, the last two in tokens, such as 40:128/32, not \"" +
              text + "\"");
    }
    scenario.prompt = prompt, scenario.answer = answer;
    return scenario;
  }
};

// What one request got.
struct Outcome {
  std::size_t scenario = 0;
  serving::Finish finish = serving::Finish::failed;
  std::string error;     // of what failed
  bool refused = false;  // because too many waited
  std::int64_t prompt_tokens = 0, tokens = 0;
  std::string devices;
  // Seconds after the start of the load. A request begins when it should have been sent: that the load was late with it
  // because others took long is no excuse. first_token 0: there was none.
  double begin = 0, first_token = 0, end = 0;

  bool ok() const { return finish == serving::Finish::stop || finish == serving::Finish::length; }
  double response() const { return end - begin; }
  double to_first_token() const { return first_token - begin; }
  double per_token() const { return tokens > 1 ? (end - first_token) / static_cast<double>(tokens - 1) : 0; }
};

struct Plan {
  std::vector<Scenario> mix;
  std::int64_t requests = 200;
  int concurrency = 8;     // closed loop: so many clients, each with one request at a time
  double rate = 0;         // open loop, where above 0: requests a second, as they come by chance (a Poisson process)
  std::uint64_t seed = 1;  // the same requests, and the same moments, for every allocation
};

// Sends the requests of a plan to an engine. Outcomes are in the order in which the requests were made up.
class Load {
 public:
  Load(serving::Engine& engine, const Plan& plan, std::int32_t vocabulary, std::function<void()> on_end)
      : engine_(engine), plan_(plan), vocabulary_(vocabulary), on_end_(std::move(on_end)), random_(plan.seed) {
    for (const auto& scenario : plan.mix) weights_.push_back(scenario.weight);
    outcomes_.resize(static_cast<std::size_t>(plan.requests));
    begin_ = Clock::now();
  }

  std::vector<Outcome> run() {
    double at = 0;
    for (std::size_t i = 0; i < outcomes_.size(); ++i) {
      auto request = make_request(outcomes_[i]);
      if (plan_.rate > 0) {
        at += std::exponential_distribution<double>(plan_.rate)(random_);
        std::this_thread::sleep_until(begin_ + std::chrono::duration_cast<Clock::duration>(Seconds(at)));
      } else {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return running_ < plan_.concurrency; });
      }
      send(outcomes_[i], std::move(request), plan_.rate > 0 ? at : now());
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return running_ == 0; });
    return outcomes_;
  }

 private:
  serving::GenerationRequest make_request(Outcome& outcome) {
    outcome.scenario = std::discrete_distribution<std::size_t>(weights_.begin(), weights_.end())(random_);
    const auto& scenario = plan_.mix[outcome.scenario];
    serving::GenerationRequest request;
    std::uniform_int_distribution<std::int32_t> token(0, vocabulary_ - 1);
    for (std::int64_t i = 0; i < scenario.prompt; ++i) request.prompt.push_back(token(random_));
    request.max_tokens = scenario.answer;
    return request;
  }

  double now() const { return Seconds(Clock::now() - begin_).count(); }

  void send(Outcome& outcome, serving::GenerationRequest request, double begin) {
    {
      std::lock_guard lock(mutex_);
      ++running_;
    }
    outcome.begin = begin;
    try {
      (void)engine_.start(std::move(request), {[this, &outcome](std::int32_t) {
                                                 if (outcome.first_token == 0) outcome.first_token = now();
                                               },
                                               [this, &outcome](const serving::GenerationEnd& end) {
                                                 outcome.finish = end.finish;
                                                 outcome.error = end.error;
                                                 outcome.refused =
                                                     end.error.starts_with("429") || end.error.starts_with("503");
                                                 outcome.devices = end.devices;
                                                 outcome.prompt_tokens = end.prompt_tokens;
                                                 outcome.tokens = end.tokens;
                                                 done(outcome);
                                               }});
    } catch (const troika::Error& error) {
      if (error.fault() == troika::Fault::invalid_argument) throw;
      outcome.refused = true;
      outcome.error = error.what();
      done(outcome);
    }
  }

  void done(Outcome& outcome) {
    outcome.end = now();
    on_end_();
    std::lock_guard lock(mutex_);
    --running_;
    changed_.notify_all();
  }

  serving::Engine& engine_;
  const Plan& plan_;
  std::int32_t vocabulary_;
  std::function<void()> on_end_;
  std::mt19937_64 random_;
  std::vector<double> weights_;
  std::vector<Outcome> outcomes_;
  Clock::time_point begin_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int running_ = 0;
};

// Makes a group slower than it is: after each step it sleeps for (factor - 1) times what the step took.
class Brake {
 public:
  explicit Brake(double factor) : factor_(factor) {}
  void operator()(int device, std::uint64_t) {
    if (factor_ <= 1 || device != first_device_.load()) {
      int none = -1;
      if (!first_device_.compare_exchange_strong(none, device)) return;
    }
    const auto now = Clock::now();
    // A step that came long after the one before waited for work, not for the device.
    const auto took = now - last_;
    if (last_ != Clock::time_point{} && took < std::chrono::milliseconds(500)) {
      std::this_thread::sleep_for(std::chrono::duration_cast<Clock::duration>((factor_ - 1) * took));
    }
    last_ = Clock::now();
  }

 private:
  double factor_;
  std::atomic<int> first_device_{-1};  // one rank sleeps; the others wait for it
  Clock::time_point last_{};
};

}  // namespace stress
