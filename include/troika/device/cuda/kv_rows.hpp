// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <troika/core/shape.hpp>
#include <troika/device/cuda/device.hpp>
#include <troika/device/kv_rows.hpp>

namespace troika {

// What device/host/kv_rows.hpp says, on a GPU.
void store(CudaStream& stream, View<const float> from, KvRows<CudaDevice>& to, std::int64_t first);

}  // namespace troika
