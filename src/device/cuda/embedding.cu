// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <span>

#include <kernels/embedding.cuh>
#include <troika/device/checks.hpp>
#include <troika/device/cuda/embedding.hpp>

#include "queue.hpp"

namespace troika {

namespace {
void look_up(CudaStream& stream, std::span<const std::int32_t> ids, WeightType type, const void* table,
             const Shape& shape, std::int64_t first, View<float> y) {
  kernels::check_embedding(ids.size(), shape, y.shape());
  cuda::embedding(type,
                  {ids.data(), static_cast<const std::uint8_t*>(table), y.data(), static_cast<std::int64_t>(ids.size()),
                   shape[0], shape[1], first},
                  cuda::stream_of(stream));
}
}  // namespace

void embedding(CudaStream& stream, std::span<const std::int32_t> ids, View<const float> table, std::int64_t first,
               View<float> y) {
  look_up(stream, ids, WeightType::f32, table.data(), table.shape(), first, y);
}
void embedding(CudaStream& stream, std::span<const std::int32_t> ids, View<const f16> table, std::int64_t first,
               View<float> y) {
  look_up(stream, ids, WeightType::f16, table.data(), table.shape(), first, y);
}
void embedding(CudaStream& stream, std::span<const std::int32_t> ids, View<const bf16> table, std::int64_t first,
               View<float> y) {
  look_up(stream, ids, WeightType::bf16, table.data(), table.shape(), first, y);
}
void embedding(CudaStream& stream, std::span<const std::int32_t> ids, QuantisedView table, std::int64_t first,
               View<float> y) {
  look_up(stream, ids, table.type, table.data, table.shape(), first, y);
}
void embedding(CudaStream&, std::span<const std::int32_t>, PanelView, std::int64_t, View<float>) {
  throw Error(Fault::unsupported, "a table in panels: panels are an order of x86 processors");
}

}  // namespace troika
