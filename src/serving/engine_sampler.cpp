// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/engine_sampler.hpp>

#include <algorithm>
#include <utility>

namespace troika::serving {

const std::vector<SampledEngine>& EngineSampler::sample(const EngineWatch& watch, Clock::time_point now) {
  engines_.clear();
  std::map<const Engine*, Before> seen;
  watch.each([&](const std::string& model, const Engine& engine) {
    SampledEngine sampled{.model = model, .load = engine.load()};
    const auto states = engine.device_states();
    const auto found = before_.find(&engine);
    // The address may be that of an engine that is gone.
    const bool known = found != before_.end() && found->second.load.steps <= sampled.load.steps &&
                       found->second.devices.size() == states.size();
    const auto& before = known ? found->second : Before{sampled.load, states, now, now};
    const double seconds = std::chrono::duration<double>(now - before.at).count();
    const auto rate = [&](auto after, auto earlier) {
      return seconds > 0 && after > earlier ? static_cast<double>(after - earlier) / seconds : 0.0;
    };
    sampled.tokens_per_second = rate(sampled.load.tokens, before.load.tokens);
    sampled.prompt_tokens_per_second = rate(sampled.load.prompt_tokens, before.load.prompt_tokens);
    for (std::size_t i = 0; i < states.size(); ++i) {
      sampled.devices.push_back({states[i], std::min(1.0, rate(states[i].busy_seconds, before.devices[i].busy_seconds)),
                                 std::min(1.0, rate(states[i].waited_seconds, before.devices[i].waited_seconds))});
    }
    const bool silent = sampled.load.running > 0 && sampled.load.steps == before.load.steps;
    const auto stepped = silent ? before.stepped : now;
    sampled.silent = now - stepped;
    seen.emplace(&engine, Before{sampled.load, states, now, stepped});
    engines_.push_back(std::move(sampled));
  });
  before_ = std::move(seen);
  return engines_;
}

}  // namespace troika::serving
