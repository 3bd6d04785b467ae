// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/alerts.hpp>

#include <chrono>
#include <cstdio>
#include <string>

namespace troika::serving {
namespace {

using namespace std::chrono_literals;

constexpr auto alert_window = 5min;
constexpr std::size_t few = 5;  // requests, of which a share says nothing

std::string text(const char* format, double value) {
  char line[120];
  std::snprintf(line, sizeof line, format, value);
  return line;
}

std::chrono::nanoseconds hold_of(const AlertLimits& limits) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(limits.hold_seconds));
}

}  // namespace

std::vector<Measurement> serving_measurements(const std::vector<SampledEngine>& engines, const RequestLog& requests,
                                              const AlertLimits& limits, Clock::time_point now) {
  const auto hold = hold_of(limits);
  const double silence = limits.silence_seconds, budget = limits.first_token_seconds;
  const auto recent = requests.since(now - alert_window);
  std::vector<Measurement> round;
  for (const auto& engine : engines) {
    const auto& load = engine.load;
    const double silent = engine.silent.count();
    round.push_back({{"devices silent", silence, silence, 0ns},
                     engine.model,
                     silent,
                     text("no step was taken for %.0f s while requests run", silent)});
    round.push_back({{"not ready", 1, 1, hold},
                     engine.model,
                     load.ready ? 0.0 : 1.0,
                     "it takes no steps: its devices failed, or it is being split anew"});
    for (const auto& device : engine.devices) {
      round.push_back({{"device lost", 1, 1, 0ns},
                       engine.model + " on " + device.state.name,
                       device.state.lost ? 1.0 : 0.0,
                       "the device failed and is left out until the model is loaded again"});
    }
    const double used = load.pages > 0 ? double(load.pages_used) / double(load.pages) : 0;
    round.push_back({{"memory", limits.memory, 0.9 * limits.memory, hold},
                     engine.model,
                     load.waiting > 0 ? used : 0,
                     text("requests wait for memory for keys and values, %.0f %% of which is in use", 100 * used)});

    std::vector<double> first_tokens;
    std::size_t ended = 0, failed = 0;
    for (const auto& request : recent) {
      if (request.model != engine.model || request.end.finish == Finish::cancelled) continue;
      ++ended;
      failed += request.end.finish == Finish::failed ? 1 : 0;
      if (request.end.tokens > 0) first_tokens.push_back(request.first_token_seconds());
    }
    const double slow = first_tokens.size() < few ? 0 : percentile(first_tokens, 0.95);
    round.push_back({{"latency", budget, 0.8 * budget, hold},
                     engine.model,
                     slow,
                     text("one request in twenty waits %.2f s or longer for its first token", slow)});
    const double errors = ended < few ? 0 : double(failed) / double(ended);
    round.push_back({{"errors", limits.errors, 0.5 * limits.errors, hold},
                     engine.model,
                     errors,
                     text("%.0f %% of the requests of the last 5 minutes failed", 100 * errors)});
  }
  return round;
}

std::vector<Measurement> gpu_measurements(const std::vector<GpuReading>& gpus, const AlertLimits& limits) {
  std::vector<Measurement> round;
  for (const auto& gpu : gpus) {
    const std::string name = "GPU " + std::to_string(gpu.index);
    round.push_back({{"GPU lost", 1, 1, 0ns},
                     name,
                     gpu.lost ? 1.0 : 0.0,
                     "the driver does not reach it any more; mostly only a restart of the machine brings it back"});
    round.push_back({{"GPU slowed", 1, 1, hold_of(limits)},
                     name,
                     gpu.slowed.value_or(false) ? 1.0 : 0.0,
                     gpu.celsius ? text("heat or its power supply holds its clocks down, at %.0f degrees", *gpu.celsius)
                                 : "heat or its power supply holds its clocks down"});
  }
  return round;
}

}  // namespace troika::serving
