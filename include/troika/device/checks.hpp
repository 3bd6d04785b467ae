// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <troika/core/error.hpp>
#include <troika/core/partition.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/attention_mask.hpp>
#include <troika/device/rotary_table.hpp>

// What the math of every device asks of its arguments. Each throws Error{invalid_argument} that says what is valid.
namespace troika::kernels {

inline void same_shape(const char* operation, const Shape& input, const Shape& y) {
  expects(input == y, [&] {
    return std::string(operation) + " takes inputs of the shape of y, " + y.to_string() + ", not " + input.to_string();
  });
}

inline void check_soft_cap(float cap) {
  expects(cap > 0 && std::isfinite(cap),
          [&] { return "a soft cap is finite and above 0, not " + std::to_string(cap); });
}

inline void check_terms(const Shape& x, const Shape& y) {
  expects(x.dims() > 0 && x[0] >= 1 && x.count() == x[0] * y.count(), [&] {
    return "adding terms takes (terms, ...) of the shape of y, " + y.to_string() + ", not " + x.to_string();
  });
}

inline void check_norm(const char* operation, const Shape& x, const Shape& y, std::size_t weight, std::size_t bias) {
  expects(
      x.dims() == 2 && y == x && static_cast<std::int64_t>(weight) == x[1] && static_cast<std::int64_t>(bias) == x[1],
      [&] {
        return std::string(operation) + " takes x and y (rows, d) and d weights, not " + x.to_string() + ", " +
               y.to_string() + " and " + std::to_string(weight == bias ? weight : bias);
      });
}

inline void check_linear(const Shape& x, const Shape& w, const Shape& y) {
  expects(x.dims() == 2 && w.dims() == 2 && y.dims() == 2 && x[1] == w[1] && y[0] == x[0] && y[1] == w[0], [&] {
    return "linear takes x (m, k), w (n, k), y (m, n), not " + x.to_string() + ", " + w.to_string() + ", " +
           y.to_string();
  });
}

inline void check_attention(const Shape& q, const Shape& keys, const Shape& values, const Shape& y,
                            std::span<const std::int32_t> kv_head_of, const AttentionMask& mask) {
  expects(q.dims() == 3 && keys.dims() == 3 && values == keys && y == q && (q[2] == keys[2] || q[1] == 0), [&] {
    return "attention takes q and y (tokens, heads, head_dim), keys and values (kv_tokens, kv_heads, head_dim), not " +
           q.to_string() + ", " + y.to_string() + ", " + keys.to_string() + ", " + values.to_string();
  });
  expects(static_cast<std::int64_t>(kv_head_of.size()) == q[1], [&] {
    return "attention has " + std::to_string(q[1]) + " query heads, but kv_head_of maps " +
           std::to_string(kv_head_of.size());
  });
  for (const auto kv : kv_head_of) {
    expects(kv >= 0 && kv < keys[1],
            [&] { return "KV head " + std::to_string(kv) + " does not exist; there are " + std::to_string(keys[1]); });
  }
  expects(q[1] == 0 || mask.needed(q[0]) <= keys[0], [&] {
    return "the mask reads " + std::to_string(mask.needed(q[0])) + " keys, but there are " + std::to_string(keys[0]);
  });
}

inline void check_rotary(const Shape& x, std::span<const std::int32_t> positions, const RotaryTable& table) {
  expects(
      x.dims() == 3 && x[0] == static_cast<std::int64_t>(positions.size()) && (x[2] >= table.head_dim() || x[1] == 0),
      [&] {
        return "rotary takes x (tokens, heads, " + std::to_string(table.head_dim()) +
               " or more) and a position per token, not " + x.to_string() + " and " + std::to_string(positions.size()) +
               " positions";
      });
  for (const auto position : positions) {
    expects(position >= 0 && position < table.positions(), [&] {
      return "position " + std::to_string(position) + " is outside of the rotary table, which holds 0 to " +
             std::to_string(table.positions() - 1);
    });
  }
}

inline void check_embedding(std::size_t ids, const Shape& table, const Shape& y) {
  expects(table.dims() == 2 && y.dims() == 2 && y[1] == table[1] && y[0] == static_cast<std::int64_t>(ids), [&] {
    return "embedding takes a table (rows, d) and y (" + std::to_string(ids) + ", d), not " + table.to_string() +
           " and " + y.to_string();
  });
}

inline void check_experts(const Shape& scores, const Shape& chosen, const Shape& weights) {
  expects(chosen == weights && chosen[0] == scores[0] && chosen[1] <= scores[1], [&] {
    return "choosing experts takes scores (tokens, experts) and gives (tokens, used), not " + scores.to_string() +
           ", " + chosen.to_string() + " and " + weights.to_string();
  });
}

inline void check_store(const Shape& from, const Shape& to, std::int64_t first) {
  const std::int64_t tokens = from.dims() > 0 ? from[0] : 0;
  expects(from == to.with(0, tokens) && first >= 0 && first + tokens <= to[0], [&] {
    return "rows of shape " + from.to_string() + " do not go into " + to.to_string() + " at " + std::to_string(first);
  });
}

inline void check_slice(const char* action, const Shape& whole, int dim, Range range, const Shape& part) {
  expects(range.begin >= 0 && range.end <= whole[dim] && part == whole.with(dim, range.size()), [&] {
    return "cannot " + std::string(action) + " a piece " + part.to_string() + " that is " +
           std::to_string(range.begin) + ".." + std::to_string(range.end) + " of dimension " + std::to_string(dim) +
           " of " + whole.to_string();
  });
}
inline void check_copy(const Shape& from, const Shape& to) {
  expects(from == to, [&] { return "cannot copy " + from.to_string() + " to " + to.to_string(); });
}

}  // namespace troika::kernels
