// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <span>

#include <kernels/rotary.cuh>
#include <troika/device/checks.hpp>
#include <troika/device/cuda/rotary.hpp>

#include "queue.hpp"

namespace troika {

void rotary(CudaStream& stream, View<float> x, std::span<const std::int32_t> positions, const RotaryTable& table) {
  kernels::check_rotary(x.shape(), positions, table);
  if (x.count() == 0) return;
  cuda::Queue& queue = stream.device().queue();
  const auto [cos, sin] = queue.angles(table);
  const Shape& shape = x.shape();
  cuda::rotary({x.data(), queue.on_device(positions), cos, sin, shape[0], static_cast<int>(shape[1]),
                static_cast<int>(shape[2]), static_cast<int>(table.head_dim() / 2)},
               queue.stream());
}

}  // namespace troika
