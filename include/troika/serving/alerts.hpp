// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include <troika/observe/alerts.hpp>
#include <troika/observe/gpus.hpp>
#include <troika/serving/engine_sampler.hpp>
#include <troika/serving/request_log.hpp>

namespace troika::serving {

struct AlertLimits {
  double silence_seconds = 10;     // requests run and no step is taken
  double first_token_seconds = 5;  // 95 of 100 requests of the last 5 minutes have theirs by then
  double errors = 0.05;            // share of the requests of the last 5 minutes that failed
  double memory = 0.95;            // share of the pages for keys and values in use, while requests wait
  double hold_seconds = 15;        // for so long, before it counts; silence and lost devices count at once
};

// What a server watches of itself, as a round for Alerts: silent and lost devices, latency, memory and errors of each
// model.
std::vector<Measurement> serving_measurements(const std::vector<SampledEngine>& engines, const RequestLog& requests,
                                              const AlertLimits& limits, Clock::time_point now);
// And of the GPUs of its machine: lost ones, and such as are slowed by heat or by their power supply.
std::vector<Measurement> gpu_measurements(const std::vector<GpuReading>& gpus, const AlertLimits& limits);

}  // namespace troika::serving
