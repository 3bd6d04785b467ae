// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include <troika/core/shape.hpp>
#include <troika/device/cuda/device.hpp>
#include <troika/device/weight.hpp>

// What device/host/embedding.hpp says, on a GPU; ids are in its memory, and those below 0 give zeros, too.
namespace troika {

void embedding(CudaStream& stream, std::span<const std::int32_t> ids, View<const float> table, std::int64_t first,
               View<float> y);
void embedding(CudaStream& stream, std::span<const std::int32_t> ids, View<const f16> table, std::int64_t first,
               View<float> y);
void embedding(CudaStream& stream, std::span<const std::int32_t> ids, View<const bf16> table, std::int64_t first,
               View<float> y);
void embedding(CudaStream& stream, std::span<const std::int32_t> ids, QuantisedView table, std::int64_t first,
               View<float> y);
// Panels are an order of the host's: Error{unsupported}.
void embedding(CudaStream& stream, std::span<const std::int32_t> ids, PanelView table, std::int64_t first,
               View<float> y);

}  // namespace troika
