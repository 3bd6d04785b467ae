// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include <kernels/kv_rows.cuh>
#include <kernels/map.cuh>
#include <troika/device/checks.hpp>
#include <troika/device/cuda/kv_rows.hpp>
#include <troika/device/cuda/slices.hpp>

#include "queue.hpp"

namespace troika {

void store(CudaStream& stream, View<const float> from, KvRows<CudaDevice>& to, std::int64_t first) {
  kernels::check_store(from.shape(), to.shape(), first);
  const std::int64_t heads = to.shape()[1], d = to.shape()[2], at = first * heads * d;
  if (from.count() == 0) return;
  std::uint8_t* const data = to.data() + at * bytes_of(to.type());
  const auto on = cuda::stream_of(stream);
  switch (to.type()) {
    case KvType::f32:
      return cuda::copy_bytes(stream, from.data(), data, static_cast<std::size_t>(from.count()) * sizeof(float));
    case KvType::bf16: return cuda::cast(from.data(), reinterpret_cast<bf16*>(data), from.count(), on);
    case KvType::f16: return cuda::cast(from.data(), reinterpret_cast<f16*>(data), from.count(), on);
    case KvType::q8:
      return cuda::store_8_bits(from.data(), from.shape()[0] * heads, static_cast<int>(d),
                                reinterpret_cast<std::int8_t*>(data), to.scales() + first * heads, on);
  }
}

}  // namespace troika
