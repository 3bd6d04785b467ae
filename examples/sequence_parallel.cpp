// SPDX-License-Identifier: Apache-2.0
//
//   x, my tokens --> norm --> all_gather --> attention --> reduce_scatter --> + --> norm --> all_gather --> ...
//
// Sequence parallelism: the all_reduce falls into its two halves, and between them each rank keeps only its tokens, so
// that norms and residuals are split too. One line changes: the hidden state is Shard<0> where it was Replicate.
#include <cmath>
#include <cstdio>
#include <numeric>
#include <vector>

#include "random_block.hpp"

int main() {
  troika::TaskScheduler scheduler{troika::host_devices(4), troika::StaticAllocation{}};
  const auto differences = scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};

    const auto block = random_block(pipeline, {.hidden = 64, .intermediate = 160, .heads = 8, .kv_heads = 4});
    std::vector<std::int32_t> positions(10);
    std::iota(positions.begin(), positions.end(), 0);
    const troika::RotaryTable rotary(16, 8);
    const troika::AttentionContext<troika::HostDevice> context{.positions = positions, .rotary = &rotary};
    const Numbers input(10, 64, 9);

    const auto replicated = block.forward(pipeline, pipeline.replicate(input.view()), context);

    auto mine = pipeline.run(pipeline.replicate(input.view()), troika::to<troika::Shard<0>>);  // the line that changes
    const auto tokens = mine.local().shape()[0];
    const auto split = pipeline.run(block.forward(pipeline, std::move(mine), context), troika::to<troika::Replicate>);

    float difference = 0;
    for (std::size_t i = 0; i < split.values().size(); ++i) {
      difference = std::fmax(difference, std::abs(split.values()[i] - replicated.values()[i]));
    }
    return std::pair(tokens, difference);
  });

  bool right = true;
  for (const auto& [tokens, difference] : differences) {
    std::printf("a rank keeps %lld of 10 tokens; largest difference from keeping all: %.2g\n",
                static_cast<long long>(tokens), difference);
    right &= difference < 1e-5f;
  }
  std::printf("\nNext: uneven_devices, where one device gets three times the work of another.\n");
  return right ? 0 : 1;
}
