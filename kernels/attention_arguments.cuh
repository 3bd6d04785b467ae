// SPDX-License-Identifier: Apache-2.0
#pragma once

// What attention.cuh and attention_prompt.cuh are told, and where and which keys a row reads.

#include <cstdint>

#include <kernels/language.cuh>
#include <troika/device/kv_rows.hpp>

namespace troika::cuda {

inline constexpr int attention_warps = 4, attention_threads = attention_warps * 32;
inline constexpr int most_head_dim = 256;

struct AttentionArguments {
  const float* q;  // (tokens, heads, d)
  float* y;        // (tokens, heads, d)
  // Keys and values as KvView has them, in memory of this GPU.
  KvType type;
  const std::uint8_t *keys, *values;
  const float *key_scales, *value_scales;  // of q8
  const std::int32_t* pages;               // or null
  // Query heads in the order of their KV heads: those of KV head i are grouped[start[i]] to grouped[start[i + 1]].
  const std::int32_t *grouped, *start;
  int heads, kv_heads, d;
  std::int64_t tokens, kv_tokens;
  // Query i reads keys before first_end + i, and of these only the last `window`; or, where it is not causal, before
  // first_end.
  bool causal;
  std::int64_t first_end, window;
  float scale, cap;  // scores s become cap tanh(s / cap) where cap is above 0
  int splits;        // of the keys
  // (splits, tokens, heads, d + 2) where splits > 1: the sums, the largest score, the sum of weights.
  float* partial;
};

__device__ inline std::int64_t kv_row(const AttentionArguments& a, std::int64_t token) {
  return a.pages ? std::int64_t{a.pages[token / kv_page]} * kv_page + token % kv_page : token;
}

struct KeyRange {
  std::int64_t begin, end;
};
// Which keys a token may read.
__device__ inline KeyRange readable(const AttentionArguments& a, std::int64_t token) {
  std::int64_t end = a.first_end + (a.causal ? token : 0), begin = 0;
  if (a.causal && end > a.window) begin = end - a.window;
  return {begin, end < a.kv_tokens ? end : a.kv_tokens};
}

}  // namespace troika::cuda
