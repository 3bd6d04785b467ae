// SPDX-License-Identifier: Apache-2.0
//
//            W, (out, in)                    W, (out, in)
//          +-------------+                 +----+----+----+
//          |   rank 0    |                 |    |    |    |
//    x  *  +-------------+  = y by        x|rank|rank|rank|  = terms of y,
//   whole  |   rank 1    |    columns      | 0  | 1  | 2  |    to be added
//          +-------------+                split |    |    |
//          |   rank 2    |                 +----+----+----+
//          +-------------+
//       ColumnParallelLinear              RowParallelLinear
//       Replicate -> Shard<1>             Shard<1> -> Partial
//
// The same product y = x Wᵀ split both ways over three ranks, 10 outputs and 7 inputs: neither divides by three.
#include <cmath>
#include <cstdio>

#include <troika/troika.hpp>

#include "numbers.hpp"

int main() {
  const Numbers weight(10, 7, 1), input(2, 7, 2);
  troika::TaskScheduler scheduler{troika::host_devices(3), troika::StaticAllocation{}};

  const auto differences = scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    const auto x = pipeline.replicate(input.view());

    const troika::ColumnParallelLinear by_rows{pipeline, weight.view()};
    const troika::RowParallelLinear by_columns{pipeline, weight.view()};
    const auto a = pipeline.run(x, by_rows, troika::to<troika::Replicate>);  // all_gather
    const auto b =
        pipeline.run(x, troika::to<troika::Shard<1>>, by_columns, troika::to<troika::Replicate>);  // all_reduce

    float difference = 0;
    for (std::size_t i = 0; i < a.values().size(); ++i) {
      float expected = 0;  // the plain product, on one device
      for (std::size_t j = 0; j < 7; ++j) expected += input.values[i / 10 * 7 + j] * weight.values[i % 10 * 7 + j];
      difference =
          std::fmax(difference, std::fmax(std::abs(a.values()[i] - expected), std::abs(b.values()[i] - expected)));
    }
    if (rank.rank() == 0) {
      std::printf("outputs by rank: %s\ninputs by rank:  %s\n", by_rows.partition().to_string().c_str(),
                  by_columns.partition().to_string().c_str());
    }
    return difference;
  });
  for (const float difference : differences) std::printf("largest difference from one device: %.2g\n", difference);
  std::printf("\nNext: mlp, where the two are one after the other and need a single collective.\n");
  return std::fmax(differences[0], std::fmax(differences[1], differences[2])) < 1e-5f ? 0 : 1;
}
