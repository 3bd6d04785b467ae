// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <kernels/attention.cuh>
#include <troika/device/checks.hpp>
#include <troika/device/cuda/attention.hpp>

#include "queue.hpp"

namespace troika {

namespace cuda {
extern template void attend<KvType::f16>(const AttentionArguments&, dim3, cudaStream_t);
extern template void attend<KvType::q8>(const AttentionArguments&, dim3, cudaStream_t);
}  // namespace cuda

namespace {

// Few rows leave most of a GPU without work, so their keys are split: until each multiprocessor has two blocks, but into
// no less than 256 keys.
int splits_of(std::int64_t blocks, std::int64_t keys, int multiprocessors) {
  const std::int64_t wanted = 2 * multiprocessors / std::max<std::int64_t>(blocks, 1);
  return static_cast<int>(std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(keys / 256, 1)));
}

}  // namespace

void attention(CudaStream& stream, View<const float> q, KvView keys, KvView values,
               std::span<const std::int32_t> kv_head_of, AttentionMask mask, float scale, View<float> y, float cap) {
  kernels::check_attention(q.shape(), keys.shape, values.shape, y.shape(), kv_head_of, mask);
  if (q.count() == 0) return;
  const std::int64_t tokens = q.shape()[0], heads = q.shape()[1], d = q.shape()[2];
  const std::int64_t kv_tokens = keys.shape[0], kv_heads = keys.shape[1];
  if (d > cuda::most_head_dim) {
    throw Error(Fault::unsupported, "attention on a GPU takes heads of up to " + std::to_string(cuda::most_head_dim) +
                                        " features, not " + std::to_string(d));
  }
  cuda::Queue& queue = stream.device().queue();

  // Query heads in the order of their KV heads, then where those of each begin.
  auto& order = queue.scratch();
  order.clear();
  for (std::int32_t kv = 0; kv < kv_heads; ++kv)
    for (std::int32_t h = 0; h < heads; ++h)
      if (kv_head_of[static_cast<std::size_t>(h)] == kv) order.push_back(h);
  int most_group = 0;
  order.push_back(0);
  for (std::int32_t kv = 0; kv < kv_heads; ++kv) {
    const auto group = static_cast<std::int32_t>(std::ranges::count(kv_head_of, kv));
    most_group = std::max(most_group, group);
    order.push_back(order.back() + group);
  }
  const std::int32_t* const grouped = queue.on_device(std::span<const std::int32_t>(order));
  const std::int32_t* pages = nullptr;
  if (keys.pages) {
    const auto count = static_cast<std::size_t>((kv_tokens + kv_page - 1) / kv_page);
    pages = queue.on_device(std::span(keys.pages, count));
  }

  const std::int64_t blocks = (tokens * most_group + cuda::attention_rows - 1) / cuda::attention_rows * kv_heads;
  // Where keys are split depends on the other rows.
  const bool invariant = stream.device().options().invariant;
  const int splits = invariant ? 1 : splits_of(blocks, kv_tokens, queue.multiprocessors());
  CudaDevice::Buffer partial;
  if (splits > 1) {
    const auto rows = static_cast<std::size_t>(splits * tokens * heads), width = static_cast<std::size_t>(d + 2);
    partial = stream.device().allocate(rows * width * sizeof(float));
  }
  cuda::attention({.q = q.data(),
                   .y = y.data(),
                   .type = keys.type,
                   .keys = keys.data,
                   .values = values.data,
                   .key_scales = keys.scales,
                   .value_scales = values.scales,
                   .pages = pages,
                   .grouped = grouped,
                   .start = grouped + heads,
                   .heads = static_cast<int>(heads),
                   .kv_heads = static_cast<int>(kv_heads),
                   .d = static_cast<int>(d),
                   .tokens = tokens,
                   .kv_tokens = kv_tokens,
                   .causal = mask.is_causal(),
                   .first_end = mask.first_end(),
                   .window = mask.window(),
                   .scale = scale,
                   .cap = cap,
                   .splits = splits,
                   .partial = reinterpret_cast<float*>(partial.data())},
                  most_group, queue.stream());
}

}  // namespace troika
