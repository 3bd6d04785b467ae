// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <troika/serving/engine.hpp>
#include <troika/serving/engine_watch.hpp>

namespace troika::serving {

struct SampledDevice {
  DeviceState state{};
  double busy = 0, waiting = 0;  // shares of the time since the sample before: at work, and at work waiting for peers
};

struct SampledEngine {
  std::string model;
  EngineLoad load{};
  std::vector<SampledDevice> devices{};
  double tokens_per_second = 0, prompt_tokens_per_second = 0;
  std::chrono::duration<double> silent{};  // for how long requests run without a step
};

// Turns what engines counted into rates, from one sample to the next. For one thread.
class EngineSampler {
 public:
  const std::vector<SampledEngine>& sample(const EngineWatch& watch, Clock::time_point now);

 private:
  struct Before {
    EngineLoad load;
    std::vector<DeviceState> devices;
    Clock::time_point at, stepped;
  };
  std::map<const Engine*, Before> before_;
  std::vector<SampledEngine> engines_;
};

}  // namespace troika::serving
