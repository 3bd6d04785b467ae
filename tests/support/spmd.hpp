// SPDX-License-Identifier: Apache-2.0
#pragma once

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

// Runs fn(pipeline) on every rank of a world of threads and gives the results in rank order.
template <class Allocation, class F>
auto spmd(int world_size, Allocation allocation, F fn) {
  troika::TaskScheduler scheduler{troika::host_devices(world_size), std::move(allocation)};
  return scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    return fn(pipeline);
  });
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
