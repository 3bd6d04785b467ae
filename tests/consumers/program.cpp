// SPDX-License-Identifier: Apache-2.0
// What a user writes against an installed troika: an MLP, split over four devices, with one collective in all.
#include <cstdio>
#include <vector>

#include <troika/troika.hpp>

int main() {
  using Matrix = troika::View<const float>;
  const std::vector<float> numbers(48 * 16, 0.25f), bias(16, 1.0f);
  const Matrix w1(numbers.data(), {48, 16}), w2(numbers.data(), {16, 48}), input(numbers.data(), {3, 16});

  troika::TaskScheduler scheduler{troika::host_devices(4), troika::StaticAllocation{}};
  const auto values = scheduler.run_on_every_device([&](auto& rank) {  // SPMD: one thread per device
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};

    troika::ColumnParallelLinear up{pipeline, w1};       // Replicate -> Shard<1>
    troika::RowParallelLinear down{pipeline, w2, bias};  // Shard<1>  -> Partial

    const auto x = pipeline.replicate(input);
    const auto y = pipeline.run(x, up, troika::gelu, down, troika::to<troika::Replicate>);
    return y.values()[47];
  });

  // Each hidden value is gelu(16 * 0.25 * 0.25) = 0.8413447; 48 of them * 0.25, and the bias once.
  for (const float value : values) {
    if (value != values[0] || value < 11.0961f || value > 11.0962f) return std::printf("wrong: %f\n", value), 1;
  }
  std::printf("troika %d.%d: %f on %zu ranks\n", troika::version.major, troika::version.minor, values[0],
              values.size());
}
