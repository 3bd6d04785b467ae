// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <troika/device/cuda/cuda.hpp>
#include <troika/troika.hpp>

#include "runtime/recorder.hpp"
#include "support/catch.hpp"

// Ranks of which some are GPUs and others groups of cores.
namespace troika::test {

using Values = std::vector<float>;

struct Mix {
  int gpus, hosts;
  StaticAllocation shares{};
  recording::Options options() const { return {.gpus = gpus, .schedule = {shim::Schedule::Order::forward}}; }
  auto devices() const {
    std::vector<int> numbers;
    for (int gpu = 0; gpu < gpus; ++gpu) numbers.push_back(gpu);
    const bool enough = cuda_device_count() >= gpus;  // else they share the first
    return mixed_devices(enough ? cuda_devices({.precision = Precision::exact}, numbers)
                                : cuda_devices({.precision = Precision::exact, .virtual_ranks = gpus}, {0}),
                         host_devices(hosts, {.precision = Precision::exact}));
  }
};
// The last rank of one, and the first of another, gets nothing.
inline const Mix mixes[] = {{1, 1},
                            {1, 2, StaticAllocation{{5, 1, 2}}},
                            {2, 1, StaticAllocation{{3, 1, 1}}},
                            {3, 2, StaticAllocation{{4, 4, 4, 1, 0}}},
                            {1, 1, StaticAllocation{{0, 1}}}};

// What a user writes; what each rank gives.
template <class D, class F>
auto on_every(std::vector<D> devices, const StaticAllocation& shares, F&& f, CommunicationOptions options = {}) {
  TaskScheduler scheduler{std::move(devices), shares};
  return scheduler.run_on_every_device([&](auto& rank) {
    Communication communication{rank, Threads{}, options};
    DataSync sync{communication};
    Pipeline pipeline{scheduler, sync, communication};
    return f(pipeline);
  });
}
template <class F>
auto on_host(F&& f) {
  return on_every(host_devices(1, {.precision = Precision::exact}), {}, f)[0];
}
// `check` gets what each rank gives.
template <class F, class Check>
void on_mix(const Mix& mix, F&& f, Check&& check) {
  INFO(mix.gpus << " GPUs and " << mix.hosts << " groups of cores");
  const recording::Recording recording(mix.options());
  for (const auto& given : on_every(mix.devices(), mix.shares, f)) check(given);
  CHECK(recording.problems().empty());
  CHECK(recording.live().empty());
}

template <class T, class Pipeline, class X>
std::vector<T> values_of(Pipeline& pipeline, const X& x) {
  const auto here = read_back(pipeline.stream(), x.local());
  return {here.span().begin(), here.span().end()};
}

// Numbers between -0.5 and 0.5 that look like nothing.
inline Values numbers(std::int64_t count, std::uint32_t seed) {
  Values values;
  for (std::uint32_t state = seed; count > 0; --count) {
    state = state * 1664525u + 1013904223u;
    values.push_back(static_cast<float>(state >> 8) * 0x1p-24f - 0.5f);
  }
  return values;
}
inline View<const float> matrix(const Values& values, std::int64_t width) {
  return {values.data(), {static_cast<std::int64_t>(values.size()) / width, width}};
}

}  // namespace troika::test
