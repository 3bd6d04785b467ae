// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include <troika/core/shape.hpp>
#include <troika/device/checks.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/kernels.hpp>
#include <troika/device/rotary_table.hpp>

namespace troika {

// Rotates the pairs (i, i + d/2) of the first d features of each head of x (tokens, heads, head_dim), in place, where d
// is the table's; positions (tokens).
inline void rotary(HostStream& stream, View<float> x, std::span<const std::int32_t> positions, const RotaryTable& table,
                   CpuLevel level = cpu_level()) {
  kernels::check_rotary(x.shape(), positions, table);
  const std::int64_t heads = x.shape()[1], width = x.shape()[2], half = table.head_dim() / 2;
  kernels::at_level<kernels::Rows>(level, [&]<class R>(R) {
    const std::int64_t grain = 8192 / std::max<std::int64_t>(heads * half, 1) + 1;
    parallel_for(stream.device().team(), x.shape()[0], grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t position = positions[static_cast<std::size_t>(t)];
        for (std::int64_t h = 0; h < heads; ++h) {
          float* low = x.data() + (t * heads + h) * width;
          R::rotate(low, low + half, table.cos(position), table.sin(position), half);
        }
      }
    });
  });
}

}  // namespace troika
