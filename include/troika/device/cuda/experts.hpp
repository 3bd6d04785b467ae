// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include <troika/core/shape.hpp>
#include <troika/device/cuda/device.hpp>

// What device/host/experts.hpp says, on a GPU; rows and weights are in its memory.
namespace troika {

void choose_experts(CudaStream& stream, View<const float> scores, bool normalized, View<std::int32_t> chosen,
                    View<float> weights);
void gather_rows(CudaStream& stream, View<const float> x, std::span<const std::int32_t> rows, View<float> y);
void add_rows(CudaStream& stream, View<const float> x, std::span<const std::int32_t> rows,
              std::span<const float> weights, View<float> y);

}  // namespace troika
