// SPDX-License-Identifier: Apache-2.0
//
//   x --+--> norm --> attention --> all_reduce --(+)--+--> norm --> gate/up --> down --> all_reduce --(+)--> y
//       |              (heads)                    |   |             (columns)   (rows)                  |
//       +-----------------------------------------+   +-------------------------------------------------+
//
// A Llama-like block over three ranks: 8 query heads that share 2 KV heads, so a KV head is on more than one rank. The
// answer is compared with the same block on one rank.
#include <cmath>
#include <cstdio>
#include <numeric>
#include <vector>

#include "random_block.hpp"

std::vector<float> forward(int world_size, bool print) {
  troika::TaskScheduler scheduler{troika::host_devices(world_size), troika::StaticAllocation{}};
  const auto results = scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};

    const auto block = random_block(pipeline, {.hidden = 64, .intermediate = 160, .heads = 8, .kv_heads = 2});
    if (print && rank.rank() == 0) {
      std::printf("query heads by rank: %s\nKV heads by rank:    %s\n",
                  block.attention.heads().query.to_string().c_str(), block.attention.heads().kv.to_string().c_str());
    }
    std::vector<std::int32_t> positions(5);
    std::iota(positions.begin(), positions.end(), 0);
    const troika::RotaryTable rotary(16, 8);
    const troika::AttentionContext<troika::HostDevice> context{.positions = positions, .rotary = &rotary};

    const auto y = block.forward(pipeline, pipeline.replicate(Numbers(5, 64, 9).view()), context);
    return std::vector<float>(y.values().begin(), y.values().end());
  });
  return results[0];
}

int main() {
  const auto split = forward(3, true), whole = forward(1, false);
  float difference = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) difference = std::fmax(difference, std::abs(split[i] - whole[i]));
  std::printf("largest difference from one rank: %.2g, of values up to %.2g\n", difference,
              std::abs(*std::max_element(whole.begin(), whole.end())));
  std::printf("\nNext: sequence_parallel, the same block with the tokens split between its products.\n");
  return difference < 1e-4f ? 0 : 1;
}
