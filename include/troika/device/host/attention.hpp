// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include <troika/core/partition.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>

namespace troika {

// Which keys a query may read: always one range.
class AttentionMask {
 public:
  // Query i, at position offset + i of the sequence, reads keys 0 to offset + i. With a window (Mistral) it reads only the
  // last `window` of them, itself included.
  static AttentionMask causal(std::int64_t offset, std::int64_t window = no_limit) {
    expects(offset >= 0, [&] { return "the offset of a causal mask is at least 0, not " + std::to_string(offset); });
    expects(window >= 1, [&] { return "an attention window is at least 1, not " + std::to_string(window); });
    return {true, offset, window};
  }
  // Every query reads keys 0 to valid - 1, by default all.
  static AttentionMask bidirectional(std::int64_t valid = no_limit) {
    expects(valid >= 0, [&] { return "a number of valid keys is at least 0, not " + std::to_string(valid); });
    return {false, valid, no_limit};
  }

  Range keys(std::int64_t query, std::int64_t kv_tokens) const {
    if (!causal_) return {0, std::min(limit_, kv_tokens)};
    const std::int64_t end = std::min(limit_ + query + 1, kv_tokens);
    return {std::max<std::int64_t>(0, limit_ + query + 1 - window_), end};
  }
  // The tokens that a cache must hold for `tokens` queries.
  std::int64_t needed(std::int64_t tokens) const {
    if (causal_) return tokens == 0 ? 0 : limit_ + tokens;
    return limit_ == no_limit ? 0 : limit_;
  }

 private:
  static constexpr std::int64_t no_limit = std::numeric_limits<std::int64_t>::max() / 4;

  AttentionMask(bool causal, std::int64_t limit, std::int64_t window)
      : causal_(causal), limit_(limit), window_(window) {}

  bool causal_;
  std::int64_t limit_;  // offset of the first query, or the number of valid keys
  std::int64_t window_;
};

// y = softmax(scale q kT) v for each query head, with q and y (tokens, heads, head_dim), keys and values
// (kv_tokens, kv_heads, head_dim); query head h reads KV head kv_head_of[h]. A query that may read nothing gets zeros.
inline void attention(HostStream&, View<const float> q, View<const float> keys, View<const float> values,
                      std::span<const std::int32_t> kv_head_of, AttentionMask mask, float scale, View<float> y,
                      CpuLevel = cpu_level()) {
  expects(q.shape().dims() == 3 && keys.shape().dims() == 3 && values.shape() == keys.shape() && y.shape() == q.shape() &&
              (q.shape()[2] == keys.shape()[2] || q.shape()[1] == 0),
          [&] {
            return "attention takes q and y (tokens, heads, head_dim), keys and values (kv_tokens, kv_heads, head_dim), not " +
                   q.shape().to_string() + ", " + y.shape().to_string() + ", " + keys.shape().to_string() + ", " +
                   values.shape().to_string();
          });
  const std::int64_t tokens = q.shape()[0], heads = q.shape()[1], d = q.shape()[2];
  const std::int64_t kv_tokens = keys.shape()[0], kv_heads = keys.shape()[1];
  expects(static_cast<std::int64_t>(kv_head_of.size()) == heads, [&] {
    return "attention has " + std::to_string(heads) + " query heads, but kv_head_of maps " +
           std::to_string(kv_head_of.size());
  });
  if (heads == 0) return;
  for (const auto kv : kv_head_of) {
    expects(kv >= 0 && kv < kv_heads, [&] {
      return "KV head " + std::to_string(kv) + " does not exist; there are " + std::to_string(kv_heads);
    });
  }
  expects(mask.needed(tokens) <= kv_tokens, [&] {
    return "the mask reads " + std::to_string(mask.needed(tokens)) + " keys, but there are " + std::to_string(kv_tokens);
  });
  for (std::int64_t t = 0; t < tokens; ++t) {
    const Range range = mask.keys(t, kv_tokens);
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* query = q.data() + (t * heads + h) * d;
      float* out = y.data() + (t * heads + h) * d;
      const std::int64_t kv = kv_head_of[static_cast<std::size_t>(h)];
      std::fill(out, out + d, 0.0f);
      float max = -std::numeric_limits<float>::infinity(), sum = 0;
      for (std::int64_t s = range.begin; s < range.end; ++s) {
        float dot = 0;
        for (std::int64_t i = 0; i < d; ++i) dot += query[i] * keys[(s * kv_heads + kv) * d + i];
        dot *= scale;
        const float next = dot > max ? dot : max;
        const float keep = std::exp(max - next), weight = std::exp(dot - next);
        max = next;
        sum = sum * keep + weight;
        for (std::int64_t i = 0; i < d; ++i) out[i] = out[i] * keep + weight * values[(s * kv_heads + kv) * d + i];
      }
      if (!range.empty()) for (std::int64_t i = 0; i < d; ++i) out[i] /= sum;
    }
  }
}

}  // namespace troika
