// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include <troika/core/error.hpp>
#include <troika/core/partition.hpp>

namespace troika {

// Which keys a query may read: always one range.
class AttentionMask {
 public:
  // Query i, at position offset + i of the sequence, reads keys 0 to offset + i. With a window (Mistral) it reads only
  // the last `window` of them, itself included.
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
  // In numbers: query i reads keys before first_end() + i where it is_causal(), and of these the last window(); else
  // those before first_end().
  bool is_causal() const { return causal_; }
  std::int64_t first_end() const { return limit_ + (causal_ ? 1 : 0); }
  std::int64_t window() const { return window_; }
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

}  // namespace troika
