// SPDX-License-Identifier: Apache-2.0
//
//   device 0  ########################  full speed    the first split:   even
//   device 1  ############              half speed    the next ones:     what was measured
//
// One device is slow (here: it does its product twice). DynamicAllocation measures both and gives the slow one about
// half of what the other gets. Static weights, for when you know: StaticAllocation{{2.0, 1.0}}.
#include <chrono>
#include <cstdio>

#include <troika/troika.hpp>

#include "numbers.hpp"

int main() {
  const Numbers weight(1024, 512, 1), input(64, 512, 2);
  troika::TaskScheduler scheduler{troika::host_devices(2), troika::DynamicAllocation{}};

  std::printf("%6s  %18s  %18s\n", "round", "device 0", "device 1 (slow)");
  const auto rows = scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    const auto x = pipeline.replicate(input.view());

    troika::Partition split = pipeline.partition(1024);
    for (int round = 0; round < 6; ++round) {
      const troika::ColumnParallelLinear linear{pipeline, weight.view(), {}, split};
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < 20 * (rank.rank() == 1 ? 2 : 1); ++i) (void)pipeline.run(x, linear);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;

      if (rank.rank() == 0) {
        std::printf("%6d  %9lld rows, %2.0f%%  %9lld rows, %2.0f%%\n", round, static_cast<long long>(split[0].size()),
                    static_cast<double>(split[0].size()) / 10.24, static_cast<long long>(split[1].size()),
                    static_cast<double>(split[1].size()) / 10.24);
      }
      scheduler.report(rank.rank(), static_cast<double>(split[rank.rank()].size()), seconds.count());
      communication.barrier();  // both have reported
      pipeline.rebalance();     // all ranks take over what rank 0's scheduler says now
      split = pipeline.partition(1024);
    }
    return split[1].size();
  });
  if (rows[0] >= 512) std::printf("\nOther programs slowed device 0 down as much: run it again on a quiet machine.\n");
  std::printf("\nNext: allocation_policies, where whole tasks are placed and a device fails.\n");
  return rows[0] == rows[1] ? 0 : 1;
}
