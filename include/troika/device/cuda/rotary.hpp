// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include <troika/core/shape.hpp>
#include <troika/device/cuda/device.hpp>
#include <troika/device/rotary_table.hpp>

namespace troika {

// What device/host/rotary.hpp says, on a GPU. Positions and table are in memory of the host; the GPU keeps a copy of
// the table.
void rotary(CudaStream& stream, View<float> x, std::span<const std::int32_t> positions, const RotaryTable& table);

}  // namespace troika
