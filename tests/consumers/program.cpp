// SPDX-License-Identifier: Apache-2.0
// What a user writes against an installed troika: an MLP, split over four devices, with one collective in all.
#include <cstdio>
#include <vector>

#include <troika/troika.hpp>

using troika::DTensor, troika::HostDevice, troika::Replicate;

int main() {
  const std::vector<float> w1(48 * 16, 0.25f), w2(16 * 48, 0.5f), bias(16, 1.0f);

  troika::TaskScheduler scheduler{troika::host_devices(4), troika::StaticAllocation{}};
  const auto values = scheduler.run_on_every_device([&](auto& rank) {  // SPMD: one thread per device
    troika::Communication communication{rank, troika::Threads{}};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};

    troika::ColumnParallelLinear up{pipeline, troika::View<const float>(w1.data(), {48, 16})};       // Replicate -> Shard<1>
    troika::RowParallelLinear down{pipeline, troika::View<const float>(w2.data(), {16, 48}), bias};  // Shard<1> -> Partial

    troika::HostTensor<float> ones(pipeline.device(), {3, 16});
    for (auto& one : ones.span()) one = 1;
    DTensor<float, Replicate, HostDevice> x(std::move(ones));
    const auto y = pipeline.run(x, up, troika::gelu, down, troika::to<Replicate>);
    return y.values()[47];
  });

  // gelu(16 * 0.25) = 3.999873, 48 of them * 0.5, and the bias once.
  for (const float value : values) {
    if (value != values[0] || value < 96.995f || value > 96.999f) return std::printf("wrong: %f\n", value), 1;
  }
  std::printf("troika %d.%d: %f on %zu ranks\n", troika::version.major, troika::version.minor, values[0], values.size());
}
