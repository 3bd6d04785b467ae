// SPDX-License-Identifier: Apache-2.0
#include <support/spmd.hpp>

void run_spmd(int world_size, troika::StaticAllocation allocation, const std::function<void(TestPipeline&)>& fn,
              troika::Precision precision) {
  troika::TaskScheduler scheduler{troika::host_devices(world_size, {.precision = precision}), std::move(allocation)};
  scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    fn(pipeline);
  });
}
