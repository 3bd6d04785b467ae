// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <kernels/attention.cuh>
#include <kernels/attention_prompt.cuh>
#include <troika/device/checks.hpp>
#include <troika/device/cuda/attention.hpp>

#include "queue.hpp"

namespace troika {

namespace cuda {
extern template void attend<KvType::f16>(const AttentionArguments&, dim3, cudaStream_t);
extern template void attend<KvType::q8>(const AttentionArguments&, dim3, cudaStream_t);
extern template void attend_up_to<bf16, 64>(const AttentionArguments&, std::int64_t, cudaStream_t);
extern template void attend_up_to<bf16, 96>(const AttentionArguments&, std::int64_t, cudaStream_t);
extern template void attend_up_to<bf16, 128>(const AttentionArguments&, std::int64_t, cudaStream_t);
extern template void attend_up_to<bf16, 256>(const AttentionArguments&, std::int64_t, cudaStream_t);
extern template void attend_up_to<f16, 64>(const AttentionArguments&, std::int64_t, cudaStream_t);
extern template void attend_up_to<f16, 96>(const AttentionArguments&, std::int64_t, cudaStream_t);
extern template void attend_up_to<f16, 128>(const AttentionArguments&, std::int64_t, cudaStream_t);
extern template void attend_up_to<f16, 256>(const AttentionArguments&, std::int64_t, cudaStream_t);
}  // namespace cuda

namespace {

// Few rows leave most of a GPU without work, so their keys are split: until each multiprocessor has two blocks, but into
// no less than 256 keys.
int splits_of(std::int64_t blocks, std::int64_t keys, int multiprocessors) {
  const std::int64_t wanted = 2 * multiprocessors / std::max<std::int64_t>(blocks, 1);
  return static_cast<int>(std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(keys / 256, 1)));
}

// Of a KV head, from which on tensor cores are taken, though their blocks are of 64 or 128: keys are read once for all.
constexpr std::int64_t rows_for_tensor_cores = 32;

// Whether the kernel for prompts can load this, 16 bytes at a time, and count it.
bool fits_tensor_cores(View<const float> q, const KvView& keys, const KvView& values, View<float> y) {
  constexpr std::int64_t most = 1 << 30;
  return q.shape()[2] % 8 == 0 && q.shape()[0] * q.shape()[1] < most && keys.shape[0] < most &&
         cuda::aligned(q.data()) && cuda::aligned(keys.data) && cuda::aligned(values.data) && cuda::aligned(y.data());
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

  const std::int64_t rows = tokens * most_group;
  const CudaOptions& options = stream.device().options();
  // On invariant devices a row has the same bits whatever others there are, and these choose the kernel and the splits.
  const bool prompt = rows >= rows_for_tensor_cores && options.precision == Precision::fast && !options.invariant &&
                      fits_tensor_cores(q, keys, values, y);
  const std::int64_t rows_of_block = !prompt   ? cuda::attention_rows
                                     : d > 128 ? cuda::PromptTiles<256>::rows
                                               : cuda::PromptTiles<128>::rows;
  const std::int64_t blocks = (rows + rows_of_block - 1) / rows_of_block * kv_heads;
  const int splits = options.invariant ? 1 : splits_of(blocks, kv_tokens, queue.multiprocessors());
  CudaDevice::Buffer partial;
  if (splits > 1) {
    partial = stream.device().allocate(static_cast<std::size_t>(splits * tokens * heads * (d + 2)) * sizeof(float));
  }
  const cuda::AttentionArguments arguments{.q = q.data(),
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
                                           .partial = reinterpret_cast<float*>(partial.data())};
  if (!prompt) return cuda::attention(arguments, most_group, queue.stream());
  if (keys.type == KvType::f16) {
    cuda::attend_prompt<f16>(arguments, rows, queue.stream());
  } else {
    cuda::attend_prompt<bf16>(arguments, rows, queue.stream());
  }
  if (splits > 1) cuda::merge_attention(arguments, queue.stream());
}

}  // namespace troika
