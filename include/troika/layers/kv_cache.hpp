// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <troika/device/kv_rows.hpp>

namespace troika {

// Keys and values of all layers, for this rank's KV heads: per layer (capacity, heads, head_dim), stored as `type`
// says, taken whole at the start so that a step allocates nothing. Whose rows they are is not its business: a KvCache
// gives all to one sequence, and several sequences share it by pages of kv_page rows.
template <Device D>
class KvMemory {
 public:
  struct Layer {
    KvRows<D> keys, values;
  };

  KvMemory(D& device, int layers, std::int64_t capacity, std::int64_t heads, std::int64_t head_dim,
           KvType type = KvType::f32)
      : capacity_(capacity) {
    const Shape shape{capacity, heads, head_dim};
    for (int i = 0; i < layers; ++i) layers_.push_back({{device, type, shape}, {device, type, shape}});
  }

  std::int64_t capacity() const { return capacity_; }
  std::int64_t pages() const { return capacity_ / kv_page; }
  std::int64_t bytes() const {  // of all layers on this rank
    std::int64_t total = 0;
    for (const auto& layer : layers_) total += layer.keys.bytes() + layer.values.bytes();
    return total;
  }
  Layer& layer(int i) { return layers_[static_cast<std::size_t>(i)]; }

 private:
  std::int64_t capacity_;
  std::vector<Layer> layers_;
};

// The memory of one sequence, and how many tokens every layer holds.
template <Device D>
class KvCache {
 public:
  KvCache(D& device, int layers, std::int64_t capacity, std::int64_t heads, std::int64_t head_dim,
          KvType type = KvType::f32)
      : memory_(device, layers, capacity, heads, head_dim, type) {}

  std::int64_t capacity() const { return memory_.capacity(); }
  std::int64_t length() const { return length_; }
  std::int64_t bytes() const { return memory_.bytes(); }
  KvMemory<D>& memory() { return memory_; }
  // Forgets all tokens from `length` on.
  void truncate(std::int64_t length) {
    expects(length >= 0 && length <= length_, [&] {
      return "a cache of " + std::to_string(length_) + " tokens cannot be cut to " + std::to_string(length);
    });
    length_ = length;
  }
  // Room for `tokens` more must be there before a step writes them.
  void check_room(std::int64_t tokens) const {
    expects(tokens <= capacity() - length_, [&] {
      return std::to_string(length_) + " tokens and " + std::to_string(tokens) + " more do not fit a context of " +
             std::to_string(capacity());
    });
  }
  // All layers have written `tokens` more rows.
  void advance(std::int64_t tokens) { length_ += tokens; }

 private:
  KvMemory<D> memory_;
  std::int64_t length_ = 0;
};

// The rows of one sequence in the input of a pass: `tokens` of them, after `cached` that the memory holds, on pages of
// it or from its first row on.
struct SequenceRows {
  std::int64_t tokens = 0, cached = 0;
  std::span<const std::int32_t> pages{};

  // f(first, last, row): rows [first, last) of these go to the memory from `row` on.
  template <class F>
  void for_runs(F&& f) const {
    if (pages.empty()) return f(std::int64_t{0}, tokens, cached);
    for (std::int64_t first = 0, last; first < tokens; first = last) {
      const auto token = cached + first;
      last = std::min(tokens, first + kv_page - token % kv_page);
      f(first, last, pages[static_cast<std::size_t>(token / kv_page)] * kv_page + token % kv_page);
    }
  }
};

}  // namespace troika
