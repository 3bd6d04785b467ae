// SPDX-License-Identifier: Apache-2.0
#include <support/spmd.hpp>

void run_spmd(int world_size, troika::StaticAllocation allocation, const std::function<void(TestPipeline&)>& fn,
              troika::HostOptions options, int cores_each) {
  auto devices = troika::host_devices(world_size, options);
  if (cores_each > 0) {
    const auto cores = troika::available_cores();
    std::vector<std::vector<int>> groups(static_cast<std::size_t>(world_size));
    std::size_t next = 0;
    for (auto& group : groups) {
      while (static_cast<int>(group.size()) < cores_each) group.push_back(cores[next++ % cores.size()]);
    }
    devices = troika::host_devices(std::move(groups), std::move(options));
  }
  troika::TaskScheduler scheduler{std::move(devices), std::move(allocation)};
  scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    fn(pipeline);
  });
}
