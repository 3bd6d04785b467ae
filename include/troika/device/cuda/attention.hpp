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
// Heads of up to 256 features, or Error{unsupported}. With Precision::fast, where 32 rows (tokens times query heads) or
// more read a KV head, and heads have a multiple of 8 features, products are of 16 bits: of f16 where the cache is, else of
// bf16. Not on invariant devices.
void attention(CudaStream& stream, View<const float> q, KvView keys, KvView values,
               std::span<const std::int32_t> kv_head_of, AttentionMask mask, float scale, View<float> y, float cap = 0);

}  // namespace troika
