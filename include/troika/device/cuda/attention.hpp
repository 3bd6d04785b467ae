// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include <troika/core/shape.hpp>
#include <troika/device/attention_mask.hpp>
#include <troika/device/cuda/device.hpp>
#include <troika/device/kv_rows.hpp>

namespace troika {

// What device/host/attention.hpp says, on a GPU. kv_head_of and the pages of keys and values are in memory of the host.
// Heads of up to 256 features, or Error{unsupported}.
void attention(CudaStream& stream, View<const float> q, KvView keys, KvView values,
               std::span<const std::int32_t> kv_head_of, AttentionMask mask, float scale, View<float> y, float cap = 0);

}  // namespace troika
