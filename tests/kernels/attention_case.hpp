// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kernels/attention_arguments.cuh>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <troika/core/dtype.hpp>

#include "kernel_test.hpp"

namespace troika::test {

struct AttentionCase {
  int tokens = 1, d = 16, splits = 1;
  std::int64_t kv_tokens = 40;
  KvType type = KvType::f32;
  bool causal = true, paged = false;
  std::int64_t window = 1 << 20;
  float cap = 0;
  std::vector<std::int32_t> heads_of{1, 0, 1, 1, 0};  // the KV head of each query head
  int kv_heads = 2;

  std::int64_t end(int token) const { return causal ? kv_tokens - tokens + 1 + token : kv_tokens; }
  std::int64_t begin(int token) const { return causal ? std::max<std::int64_t>(0, end(token) - window) : 0; }
};

// Stores floats as a cache would, and makes them what the cache then holds.
inline std::vector<std::uint8_t> store(KvType type, std::vector<float>& values, std::size_t d,
                                       std::vector<float>& scales) {
  std::vector<std::uint8_t> bytes(values.size() * static_cast<std::size_t>(bytes_of(type)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto put = [&](auto value) {
      std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
      return static_cast<float>(value);
    };
    if (type == KvType::f32) values[i] = put(values[i]);
    if (type == KvType::bf16) values[i] = put(bf16(values[i]));
    if (type == KvType::f16) values[i] = put(f16(values[i]));
    if (type == KvType::q8) {
      const float scale = 0.01f * static_cast<float>(1 + i / d % 3);
      if (i % d == 0) scales.push_back(scale);
      values[i] = put(static_cast<std::int8_t>(std::lround(values[i] * 100))) * scale;
    }
  }
  return bytes;
}

// Its memory, as a kernel gets it.
class AttentionMemory {
 public:
  explicit AttentionMemory(const AttentionCase& c)
      : case_(c),
        heads_(static_cast<int>(c.heads_of.size())),
        order_(size((c.kv_tokens + kv_page - 1) / kv_page)),
        q_(numbers(size(c.tokens * heads_) * size(c.d), 1, -2, 2)),
        all_keys_(numbers(rows() * size(c.kv_heads * c.d), 2)),
        all_values_(numbers(rows() * size(c.kv_heads * c.d), 3)),
        k_(store(c.type, all_keys_, size(c.d), key_scales_)),
        v_(store(c.type, all_values_, size(c.d), value_scales_)),
        k_scales_(key_scales_),
        v_scales_(value_scales_),
        queries_(q_),
        y_(q_.size()),
        partial_(c.splits > 1 ? size(c.splits * c.tokens * heads_) * size(c.d + 2) : 0),
        pages_(page_order()),
        grouped_(heads_of_kv_heads()),
        start_(starts_) {}

  cuda::AttentionArguments arguments() {
    cuda::AttentionArguments a{};
    a.q = queries_.data(), a.y = y_.data();
    a.type = case_.type, a.keys = k_.data(), a.values = v_.data();
    a.key_scales = k_scales_.data(), a.value_scales = v_scales_.data();
    a.pages = case_.paged ? pages_.data() : nullptr;
    a.grouped = grouped_.data(), a.start = start_.data();
    a.heads = heads_, a.kv_heads = case_.kv_heads, a.d = case_.d;
    a.tokens = case_.tokens, a.kv_tokens = case_.kv_tokens;
    a.causal = case_.causal, a.first_end = case_.end(0), a.window = case_.window;
    a.scale = scale, a.cap = case_.cap, a.splits = case_.splits, a.partial = partial_.data();
    return a;
  }
  int heads() const { return heads_; }
  // Keys or values as the cache holds them that a query head of a token reads.
  std::vector<float> keys(int token, int head) const { return read(all_keys_, token, head); }
  std::vector<float> values(int token, int head) const { return read(all_values_, token, head); }
  std::span<const float> query(int token, int head) const {
    return std::span(q_).subspan(size(token * heads_ + head) * size(case_.d), size(case_.d));
  }
  std::vector<float> y() { return y_.values(); }
  bool intact() { return y_.intact() && partial_.intact(); }

  static constexpr float scale = 0.3f;

 private:
  template <class N>
  static std::size_t size(N n) {
    return static_cast<std::size_t>(n);
  }
  std::size_t rows() const { return case_.paged ? order_.size() * size(kv_page) : size(case_.kv_tokens); }
  std::vector<std::int32_t> page_order() {
    for (std::size_t i = 0; i < order_.size(); ++i) order_[i] = static_cast<std::int32_t>(order_.size() - 1 - i);
    return order_;
  }
  std::vector<std::int32_t> heads_of_kv_heads() {
    std::vector<std::int32_t> grouped;
    for (int kv = 0; kv < case_.kv_heads; ++kv) {
      for (int h = 0; h < heads_; ++h) {
        if (case_.heads_of[size(h)] == kv) grouped.push_back(h);
      }
      starts_.push_back(static_cast<std::int32_t>(grouped.size()));
    }
    return grouped;
  }
  std::vector<float> read(const std::vector<float>& from, int token, int head) const {
    std::vector<float> own;
    for (std::int64_t at = case_.begin(token); at < case_.end(token); ++at) {
      const std::size_t row =
          case_.paged ? size(order_[size(at / kv_page)]) * size(kv_page) + size(at % kv_page) : size(at);
      const auto begin =
          static_cast<std::ptrdiff_t>((row * size(case_.kv_heads) + size(case_.heads_of[size(head)])) * size(case_.d));
      own.insert(own.end(), from.begin() + begin, from.begin() + begin + case_.d);
    }
    return own;
  }

  AttentionCase case_;
  int heads_;
  std::vector<std::int32_t> order_, starts_{0};
  std::vector<float> q_, all_keys_, all_values_, key_scales_, value_scales_;
  Memory<std::uint8_t> k_, v_;
  Memory<float> k_scales_, v_scales_, queries_, y_, partial_;
  Memory<std::int32_t> pages_, grouped_, start_;
};

}  // namespace troika::test
