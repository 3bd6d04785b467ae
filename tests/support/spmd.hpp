// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/threads.hpp>
#include <troika/device/host/host.hpp>
#include <troika/pipeline.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/sync/data_sync.hpp>

// The worlds that everything is tested on.
inline constexpr int test_worlds[] = {1, 2, 3, 4, 5, 8};

using TestCommunication = troika::Communication<troika::Threads>;
using TestPipeline = troika::Pipeline<troika::TaskScheduler<troika::StaticAllocation>,
                                      troika::DataSync<TestCommunication>, TestCommunication>;

// Defined in spmd.cpp, so that the scheduler is compiled once and not for every test. Devices are exact unless asked
// for otherwise, so that what is compared does not depend on the processor. With `cores_each`, each device has a team
// of so many threads, which share the cores of the machine.
void run_spmd(int world_size, troika::StaticAllocation allocation, const std::function<void(TestPipeline&)>& fn,
              troika::HostOptions options = {.precision = troika::Precision::exact}, int cores_each = 0);

// Runs fn(pipeline) on every rank of a world of threads and gives the results in rank order.
template <class F>
auto spmd(int world_size, troika::StaticAllocation allocation, F fn,
          troika::HostOptions options = {.precision = troika::Precision::exact}, int cores_each = 0) {
  using R = std::decay_t<std::invoke_result_t<F&, TestPipeline&>>;
  std::vector<std::optional<R>> results(static_cast<std::size_t>(world_size));
  run_spmd(
      world_size, std::move(allocation),
      [&](TestPipeline& pipeline) { results[static_cast<std::size_t>(pipeline.rank())].emplace(fn(pipeline)); },
      std::move(options), cores_each);
  std::vector<R> values;
  for (auto& result : results) values.push_back(std::move(*result));
  return values;
}
template <class F>
auto spmd(int world_size, F fn) {
  return spmd(world_size, troika::StaticAllocation{}, std::move(fn));
}

// Weights 1, 3, 1, 3, ...
inline std::vector<double> uneven_weights(int world_size) {
  std::vector<double> weights;
  for (int r = 0; r < world_size; ++r) weights.push_back(r % 2 ? 3 : 1);
  return weights;
}
