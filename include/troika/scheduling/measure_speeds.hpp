// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <troika/communication/communication.hpp>
#include <troika/communication/threads.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/tensor.hpp>

namespace troika {

struct SpeedProbe {
  std::int64_t outputs = 8192, inputs = 4096;  // 128 MiB, which no cache holds
  std::chrono::milliseconds time{50};
};

// Tells a scheduler how fast its devices are, by what a step of decoding mostly does: products of one row with a
// matrix, in f32, on all devices at once, as ranks work. The unit of work is a byte of the matrix. With
// DynamicAllocation the first split is then in proportion to speed. The header with the math of each kind of device is
// included where this is called.
template <class Scheduler>
void measure_speeds(Scheduler& scheduler, const SpeedProbe& probe = {}) {
  scheduler.run_on_every_device([&](auto& rank) {
    using Device = std::decay_t<decltype(rank.device())>;
    using Clock = std::chrono::steady_clock;
    Communication communication{rank, Threads{}};
    auto& device = rank.device();
    auto& stream = rank.stream();
    const Shape shape{probe.outputs, probe.inputs};
    const auto bytes = static_cast<std::size_t>(shape.count()) * sizeof(float);
    auto memory = device.allocate_exact(bytes);  // goes back to the system
    const View<float> matrix(reinterpret_cast<float*>(memory.data()), shape);
    Tensor<float, Device> x(device, {1, probe.inputs}), y(device, {1, probe.outputs});
    fill_zero(stream, matrix);
    fill_zero(stream, x.view());
    const auto multiply = [&] {
      linear(stream, std::as_const(x).view(), View<const float>(matrix), y.view());
      stream.synchronize();
    };
    multiply();  // the first one may take memory and load kernels
    communication.barrier();
    const auto begin = Clock::now();
    std::int64_t products = 0;
    do {
      multiply();
      ++products;
    } while (Clock::now() - begin < probe.time);
    const std::chrono::duration<double> seconds = Clock::now() - begin;
    scheduler.report(rank.rank(), static_cast<double>(bytes) * static_cast<double>(products), seconds.count());
  });
}

}  // namespace troika
