// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <troika/device/kv_rows.hpp>

namespace troika {

// Keys and values of the tokens seen so far, for this rank's KV heads of one sequence: per layer (capacity, heads,
// head_dim), stored as `type` says, taken whole at the start so that a decode step allocates nothing.
template <Device D>
class KvCache {
 public:
  struct Layer {
    KvRows<D> keys, values;
  };

  KvCache(D& device, int layers, std::int64_t capacity, std::int64_t heads, std::int64_t head_dim, KvType type = KvType::f32)
      : capacity_(capacity) {
    const Shape shape{capacity, heads, head_dim};
    for (int i = 0; i < layers; ++i) layers_.push_back({{device, type, shape}, {device, type, shape}});
  }

  std::int64_t capacity() const { return capacity_; }
  std::int64_t length() const { return length_; }  // tokens that every layer holds
  std::int64_t bytes() const {                     // of all layers on this rank
    std::int64_t total = 0;
    for (const auto& layer : layers_) total += layer.keys.bytes() + layer.values.bytes();
    return total;
  }
  // Forgets all tokens from `length` on.
  void truncate(std::int64_t length) {
    expects(length >= 0 && length <= length_, [&] {
      return "a cache of " + std::to_string(length_) + " tokens cannot be cut to " + std::to_string(length);
    });
    length_ = length;
  }
  // Room for `tokens` more must be there before a step writes them.
  void check_room(std::int64_t tokens) const {
    expects(tokens <= capacity_ - length_, [&] {
      return std::to_string(length_) + " tokens and " + std::to_string(tokens) + " more do not fit a context of " +
             std::to_string(capacity_);
    });
  }
  Layer& layer(int i) { return layers_[static_cast<std::size_t>(i)]; }
  // All layers have written `tokens` more rows.
  void advance(std::int64_t tokens) { length_ += tokens; }

 private:
  std::int64_t capacity_, length_ = 0;
  std::vector<Layer> layers_;
};

}  // namespace troika
