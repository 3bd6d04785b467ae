// SPDX-License-Identifier: Apache-2.0
//
//   x --> up --> gelu --> down --> all_reduce --> y      on each of four ranks, with a quarter of the weights
//
// A Megatron MLP in 25 lines: the first product by rows, the second by columns, one collective in all.
#include <cstdio>

#include <troika/troika.hpp>

#include "numbers.hpp"

int main() {
  const Numbers w1(256, 64, 1), w2(64, 256, 2), input(8, 64, 3);

  troika::TaskScheduler scheduler{troika::host_devices(4), troika::StaticAllocation{}};
  const auto first = scheduler.run_on_every_device([&](auto& rank) {  // SPMD: one thread per device
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};

    const troika::ColumnParallelLinear up{pipeline, w1.view()};  // Replicate -> Shard<1>
    const troika::RowParallelLinear down{pipeline, w2.view()};   // Shard<1>  -> Partial

    const auto x = pipeline.replicate(input.view());
    const auto y = pipeline.run(x, up, troika::gelu, down, troika::to<troika::Replicate>);
    return y.values()[0];
  });

  std::printf("y[0] = %.6f on every one of %zu ranks\n", first[0], first.size());
  std::printf(
      "Leave out the last to<Replicate>, and it does not compile.\n\nNext: block, a whole transformer block.\n");
  for (const float value : first)
    if (value != first[0]) return 1;
}
