// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include <troika/core/partition.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/attention_mask.hpp>
#include <troika/device/checks.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/gemv.hpp>
#include <troika/device/host/kernels.hpp>
#include <troika/device/host/kv_rows.hpp>
#include <troika/device/kv_rows.hpp>

namespace troika {

namespace kernels {

// Softmax and the sum over values in one pass over blocks of keys, after FlashAttention: what is kept of a row is its
// largest score so far, the sum of its weights relative to that, and the weighted sum of values. The rows of a block
// are (token, query head) pairs that read one KV head, so that a key that was loaded serves all of them.
template <CpuLevel L>
struct AttentionBlock {
  using Tile = Tiles<L>;
  static constexpr std::int64_t panel = Tile::rows, strip = Tile::columns;
  static constexpr std::int64_t rows = 4 * panel, keys = 128;
  static_assert(kv_page % keys == 0);
  static constexpr std::int64_t room = rows_at_once<L> * Tile::width;  // past queries that are turned or interleaved

  static std::int64_t padded(std::int64_t d) { return (d + strip - 1) / strip * strip; }
  // Floats that one thread needs.
  static std::int64_t scratch(std::int64_t d) {
    return 2 * rows * d + room + 2 * keys * d + keys * padded(d) + rows * keys + rows * padded(d) + 2 * rows;
  }

  struct Problem {
    const float* q;
    KvView k, v;
    float* y;
    std::int64_t tokens, heads, d, kv_tokens;
    AttentionMask mask;
    float scale, cap;
    bool invariant;  // few rows go the way of many
  };

  // Rows [first, last) of the query heads `group` (`size` of them), which read KV head `kv`: row r is head r % size of
  // token r / size.
  static void run(const Problem& a, std::int64_t kv, const std::int32_t* group, std::int64_t size, std::int64_t first,
                  std::int64_t last, float* scratch) {
    const std::int64_t count = last - first, d = a.d, wide = padded(d);
    float* const queries = scratch;            // (rows, d), scaled
    float* const turned = queries + rows * d;  // the same in panels, or interleaved where they are few
    float* const packed_k = turned + rows * d + room;
    float* const wide_k = packed_k + keys * d;  // only where keys are not floats
    float* const packed_v = wide_k + keys * d;  // only where values are not floats, or d is not a multiple of a strip
    float* const scores = packed_v + keys * wide;  // (rows, keys)
    float* const sums = scores + rows * keys;      // (rows, wide)
    float* const most = sums + rows * wide;        // (rows)
    float* const total = most + rows;              // (rows)
    const bool few = count <= rows_at_once<L> && !a.invariant;

    const auto offset = [&](std::int64_t row) {
      const std::int64_t r = first + row;
      return (r / size * a.heads + group[r % size]) * d;
    };
    for (std::int64_t i = 0; i < count; ++i) Rows<L>::multiply(a.q + offset(i), a.scale, queries + i * d, d);
    if (few) Dots<L>::interleave(queries, d, count, padded_rows(count), d, turned);
    for (std::int64_t i = 0; i < count && !few; i += panel) {
      Tile::turn(queries + i * d, d, std::min(panel, count - i), d, turned + i * d, panel);
    }
    std::fill(sums, sums + count * wide, 0.0f);
    std::fill(most, most + count, -std::numeric_limits<float>::infinity());
    std::fill(total, total + count, 0.0f);

    // Blocks begin at multiples of their size: a page holds them whole.
    const std::int64_t begin = a.mask.keys(first / size, a.kv_tokens).begin / keys * keys;
    const std::int64_t end = a.mask.keys((last - 1) / size, a.kv_tokens).end;
    for (std::int64_t at = begin; at < end; at += keys) {
      const std::int64_t some = std::min(keys, end - at);
      const auto [k, step] = floats(a.k, at, kv, some, wide_k, d);
      if (few)
        multiply_few<L, float>(count, turned, k, step, some, d, scores, keys, nullptr);
      else
        multiply_keys(count, turned, k, step, some, d, packed_k, scores);
      for (std::int64_t i = 0; i < count; ++i) {
        const Range allowed = a.mask.keys((first + i) / size, a.kv_tokens);
        const std::int64_t from = std::clamp<std::int64_t>(allowed.begin - at, 0, some);
        const std::int64_t to = std::clamp<std::int64_t>(allowed.end - at, from, some);
        if (a.cap > 0) Elementwise<L>::soft_cap(scores + i * keys + from, a.cap, scores + i * keys + from, to - from);
        soften(scores + i * keys, from, to, some, most[i], total[i], sums + i * wide, wide);
      }
      const auto [v, v_step] = floats(a.v, at, kv, some, packed_v, wide);
      add_values(count, scores, v, v_step, some, d, sums);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      // No key at all: the sum of nothing is 0.
      Rows<L>::multiply(sums + i * wide, total[i] == 0 ? 0.0f : 1 / total[i], a.y + offset(i), d);
    }
  }

 private:
  // scores (count, some) = queries keysT
  static void multiply_keys(std::int64_t count, const float* turned, const float* k, std::int64_t step,
                            std::int64_t some, std::int64_t d, float* packed, float* scores) {
    for (std::int64_t j = 0; j < some; j += strip) {
      for (std::int64_t half = 0; half < strip; half += Tile::width) {
        const std::int64_t present = std::clamp<std::int64_t>(some - j - half, 0, Tile::width);
        Tile::turn(k + (j + half) * step, step, present, d, packed + j * d + half, strip);
      }
    }
    for (std::int64_t i = 0; i < count; i += panel) {
      for (std::int64_t j = 0; j < some; j += strip) {
        Tile::template multiply<1, Tile::rows>(std::min(panel, count - i), turned + i * d, packed + j * d, strip, d,
                                               scores + i * keys + j, keys, std::min(strip, some - j), false, nullptr);
      }
    }
  }

  // Scores of one row become weights, 0 outside of [from, to); what was summed before is made relative to the new
  // maximum.
  static void soften(float* scores, std::int64_t from, std::int64_t to, std::int64_t some, float& most, float& total,
                     float* sums, std::int64_t wide) {
    std::fill(scores, scores + from, 0.0f);
    std::fill(scores + to, scores + some, 0.0f);
    if (from == to) return;
    const float highest = std::max(most, Rows<L>::max_of(scores + from, to - from));
    if (highest != most) {
      const float keep = std::exp(most - highest);
      Rows<L>::multiply(sums, keep, sums, wide);
      total *= keep;
      most = highest;
    }
    total += static_cast<float>(Rows<L>::exp_of(scores + from, highest, scores + from, to - from));
  }

  struct Floats {
    const float* rows;
    std::int64_t step;
  };
  // Rows of one head as floats, d or `wide` apart: where they are stored, if they are floats and no wider ones are
  // asked for, else in `to`.
  static Floats floats(const KvView& from, std::int64_t token, std::int64_t head, std::int64_t count, float* to,
                       std::int64_t wide) {
    const std::int64_t heads = from.shape[1], d = from.shape[2];
    if (from.type == KvType::f32 && wide == d) {
      return {reinterpret_cast<const float*>(from.data) + (from.row(token) * heads + head) * d, heads * d};
    }
    widen_rows<L>(from, token, head, count, to, wide);
    return {to, wide};
  }

  // sums (count, d) += weights values, of which whole strips are read
  static void add_values(std::int64_t count, const float* weights, const float* v, std::int64_t step, std::int64_t some,
                         std::int64_t d, float* sums) {
    const std::int64_t wide = padded(d);
    for (std::int64_t i = 0; i < count; i += panel) {
      for (std::int64_t j = 0; j < wide; j += strip) {
        Tile::template multiply<keys, 1>(std::min(panel, count - i), weights + i * keys, v + j, step, some,
                                         sums + i * wide + j, wide, strip, true, nullptr);
      }
    }
  }
};

// What the library troika::kernels has compiled.
#if defined(__x86_64__)
#define TROIKA_ATTENTION_INSTANCES(instance)       \
  instance struct AttentionBlock<CpuLevel::plain>; \
  instance struct AttentionBlock<CpuLevel::avx2>;  \
  instance struct AttentionBlock<CpuLevel::avx512>;
#else
#define TROIKA_ATTENTION_INSTANCES(instance) instance struct AttentionBlock<CpuLevel::plain>;
#endif
#if defined(TROIKA_COMPILED_KERNELS)
TROIKA_ATTENTION_INSTANCES(extern template)
#endif

}  // namespace kernels

// y = softmax(scale q kT) v for each query head, with q and y (tokens, heads, head_dim), keys and values
// (kv_tokens, kv_heads, head_dim); query head h reads KV head kv_head_of[h]. A query that may read nothing gets zeros.
// With a cap above 0, scores s become cap tanh(s / cap) before the softmax. Keys and values are of any KvType; they
// become floats block by block. Scratch is bounded, whatever the number of tokens. y must not overlap the inputs. A row
// of y has the same bits whatever the other rows are on invariant devices; on others it differs where rows are few.
inline void attention(HostStream& stream, View<const float> q, KvView keys, KvView values,
                      std::span<const std::int32_t> kv_head_of, AttentionMask mask, float scale, View<float> y,
                      float cap = 0, CpuLevel level = cpu_level()) {
  kernels::check_attention(q.shape(), keys.shape, values.shape, y.shape(), kv_head_of, mask);
  if (q.count() == 0) return;
  HostDevice& device = stream.device();
  const std::int64_t heads = q.shape()[1], kv_heads = keys.shape[1];
  kernels::at_level<kernels::AttentionBlock>(level, [&]<CpuLevel L>(kernels::AttentionBlock<L>) {
    using Block = kernels::AttentionBlock<L>;
    const typename Block::Problem problem{q.data(),     keys,  values,       y.data(),
                                          q.shape()[0], heads, q.shape()[2], keys.shape[0],
                                          mask,         scale, cap,          device.options().invariant};
    // Query heads in the order of their KV heads: those of KV head i are grouped[start[i]] to grouped[start[i + 1]].
    const std::int64_t each = (Block::scratch(problem.d) + 15) / 16 * 16;
    const bool alone = q.count() * keys.shape[0] < 1 << 17;
    const int threads = alone ? 1 : device.team().size();
    auto buffer = device.allocate(static_cast<std::size_t>(each * threads + heads + kv_heads + 1) * sizeof(float));
    auto* const scratch = reinterpret_cast<float*>(buffer.data());
    auto* const grouped = reinterpret_cast<std::int32_t*>(scratch + each * threads);
    auto* const start = grouped + heads;
    std::int32_t placed = 0;
    for (std::int64_t kv = 0; kv < kv_heads; ++kv) {
      start[kv] = placed;
      for (std::int64_t h = 0; h < heads; ++h) {
        if (kv_head_of[static_cast<std::size_t>(h)] == kv) grouped[placed++] = static_cast<std::int32_t>(h);
      }
    }
    start[kv_heads] = placed;

    // Blocks are taken one by one, the last rows first: they read the most keys. Who computes a block changes no bit.
    std::atomic<std::int64_t> next{0};
    const auto work = [&](int member, int) {
      std::int64_t taken = next.fetch_add(1, std::memory_order_relaxed), block = 0;
      for (std::int64_t kv = 0; kv < kv_heads; ++kv) {
        const std::int64_t size = start[kv + 1] - start[kv], rows = size * problem.tokens;
        for (std::int64_t last = rows; last > 0; last -= Block::rows, ++block) {
          if (block != taken) continue;
          Block::run(problem, kv, grouped + start[kv], size, std::max<std::int64_t>(0, last - Block::rows), last,
                     scratch + each * member);
          taken = next.fetch_add(1, std::memory_order_relaxed);
        }
      }
    };
    if (threads == 1)
      work(0, 1);
    else
      device.team().run(work);
  });
}

}  // namespace troika
