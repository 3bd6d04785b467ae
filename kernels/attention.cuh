// SPDX-License-Identifier: Apache-2.0
#pragma once

// Softmax and the sum over values in one pass over keys, after FlashAttention: what is kept of a row is its largest
// score so far, the sum of its weights relative to that, and the weighted sum of values. A row is a (token, query head)
// pair; a block takes some that read one KV head, so that a key that was loaded serves all of them. Few rows leave most
// of a GPU without work, so the keys are split over blocks, too, and a second kernel puts the parts together.

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <kernels/attention_arguments.cuh>
#include <kernels/element.cuh>
#include <kernels/reduce.cuh>

namespace troika::cuda {

inline constexpr int attention_rows = 8, rows_of_a_warp = attention_rows / attention_warps;
inline constexpr int attention_keys = 32;  // at once: a lane each

struct AttentionScratch {
  float queries[attention_rows][most_head_dim];
  // Of keys or values half of a head's features at once; the odd width keeps lanes apart.
  float tile[attention_keys][most_head_dim / 2 + 1];
};

template <KvType type>
using KvElement = std::conditional_t<
    type == KvType::f32, float,
    std::conditional_t<type == KvType::bf16, bf16, std::conditional_t<type == KvType::f16, f16, std::int8_t>>>;
__device__ inline float to_float(std::int8_t value) { return static_cast<float>(value); }

// Features i to i + n - 1 of a row, 16 bytes at a time where `packs`, zeros past its end.
template <KvType type, int n>
__device__ void kv_values(const std::uint8_t* data, const float* scales, std::int64_t row, int d, int i, bool packs,
                          float (&to)[n]) {
  using T = KvElement<type>;
  constexpr int each = n < pack_of<T> ? n : pack_of<T>;
  const T* const from = reinterpret_cast<const T*>(data) + row * d + i;
  const float scale = type == KvType::q8 ? scales[row] : 1.0f;
  TROIKA_UNROLL
  for (int j = 0; j < n; j += each) {
    Pack<T, each> pack{};
    if (packs) {
      if (i < d) pack = load_pack<Pack<T, each>>(from + j);
    } else {
      TROIKA_UNROLL
      for (int e = 0; e < each; ++e)
        if (i + j + e < d) pack.at[e] = from[j + e];
    }
    TROIKA_UNROLL
    for (int e = 0; e < each; ++e) to[j + e] = type == KvType::q8 ? scale * to_float(pack.at[e]) : to_float(pack.at[e]);
  }
}

// wide: features that a lane keeps, at least d / 32. What bounds decoding is memory: an H100 gives a multiprocessor about
// 15 bytes a cycle, some 1000 cycles after they were asked for, so about 15 KiB have to be under way in each. A block asks
// for 32 bytes a thread of a 16-bit cache, 4 KiB, and four are on a multiprocessor: where more are wished for, nvcc spills
// registers.
template <KvType type, int wide>
__global__ void __launch_bounds__(attention_threads, 4) attention_kernel(TROIKA_ARGUMENT AttentionArguments a) {
  TROIKA_SHARED(AttentionScratch, s);
  const int kv = static_cast<int>(blockIdx.y), split = static_cast<int>(blockIdx.z);
  const int group = a.start[kv + 1] - a.start[kv];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % warp_size, warp = thread / warp_size;
  const std::int64_t rows = std::int64_t{group} * a.tokens, first = std::int64_t{blockIdx.x} * attention_rows;
  if (first >= rows) return;
  const int count = static_cast<int>(rows - first < attention_rows ? rows - first : attention_rows);
  const auto offset = [&](int row) {  // of a row in (tokens, heads)
    return (first + row) / group * a.heads + a.grouped[a.start[kv] + (first + row) % group];
  };
  for (int i = thread; i < count * a.d; i += attention_threads) {
    s.queries[i / a.d][i % a.d] = a.scale * a.q[offset(i / a.d) * a.d + i % a.d];
  }

  // This block's part of the keys that its rows read, from a multiple of attention_keys on: which keys are added
  // together does not depend on what rows there are.
  KeyRange all = readable(a, first / group);
  if (all.begin > 0) all.begin -= all.begin % attention_keys;
  all.end = readable(a, (first + count - 1) / group).end;
  const std::int64_t tiles = (all.end - all.begin + attention_keys - 1) / attention_keys;
  const std::int64_t begin = all.begin + tiles * split / a.splits * attention_keys;
  const std::int64_t limit = all.begin + tiles * (split + 1) / a.splits * attention_keys;
  const std::int64_t end = limit < all.end ? limit : all.end;

  float sums[rows_of_a_warp][wide] = {}, largest[rows_of_a_warp], total[rows_of_a_warp] = {};
  for (float& value : largest) value = -INFINITY;
  const auto at_16 = [](const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; };
  const bool packs = a.d % 8 == 0 && at_16(a.keys) && at_16(a.values);
  const int half = (a.d + 15) / 16 * 8;
  // The next `width` features of keys or values; `waits` for the tile that was there to be read.
  const auto load = [&](const std::uint8_t* data, const float* scales, std::int64_t at, int some, int from, int width,
                        bool waits) {
    constexpr int at_once = 2;
    const int eights = (width + 7) / 8, pieces = some * eights;
    if (waits) __syncthreads();
    for (int i = thread; i < pieces; i += at_once * attention_threads) {
      float eight[at_once][8];
      TROIKA_UNROLL
      for (int n = 0; n < at_once; ++n) {
        const int one = i + n * attention_threads < pieces ? i + n * attention_threads : i;
        kv_values<type>(data, scales, kv_row(a, at + one / eights) * a.kv_heads + kv, a.d, from + one % eights * 8,
                        packs, eight[n]);
      }
      TROIKA_UNROLL
      for (int n = 0; n < at_once; ++n) {
        const int one = i + n * attention_threads;
        if (one >= pieces) break;
        TROIKA_UNROLL
        for (int j = 0; j < 8; ++j) s.tile[one / eights][one % eights * 8 + j] = eight[n][j];
      }
    }
    __syncthreads();
  };
  for (std::int64_t at = begin; at < end; at += attention_keys) {
    const int some = static_cast<int>(end - at < attention_keys ? end - at : attention_keys);
    // Scores: a lane has a key.
    float scores[rows_of_a_warp] = {};
    for (int from = 0; from < a.d; from += half) {
      const int width = a.d - from < half ? a.d - from : half;
      load(a.keys, a.key_scales, at, some, from, width, at > begin || from > 0);
      if (lane < some) {
        for (int r = 0; r < rows_of_a_warp; ++r) {
          const int row = warp * rows_of_a_warp + r;
          if (row >= count) break;
          for (int i = 0; i < width; ++i) scores[r] += s.queries[row][from + i] * s.tile[lane][i];
        }
      }
    }
    float weights[rows_of_a_warp];
    TROIKA_UNROLL
    for (int r = 0; r < rows_of_a_warp; ++r) {
      const int row = warp * rows_of_a_warp + r;
      weights[r] = 0;
      if (row >= count) continue;
      const KeyRange own = readable(a, (first + row) / group);
      const bool allowed = lane < some && at + lane >= own.begin && at + lane < own.end;
      const float capped = a.cap > 0 ? a.cap * tanhf(scores[r] / a.cap) : scores[r];
      const float score = allowed ? capped : -INFINITY;
      const float most = fmaxf(largest[r], warp_max(score));
      if (most == -INFINITY) continue;  // nothing to read so far
      const float keep = expf(largest[r] - most);
      weights[r] = expf(score - most);
      largest[r] = most;
      total[r] = total[r] * keep + warp_sum(weights[r]);
      for (int j = 0; j < wide; ++j) sums[r][j] *= keep;
    }
    // Sums: a lane has features, and every key's weight comes from its lane.
    for (int from = 0; from < a.d; from += half) {
      const int width = a.d - from < half ? a.d - from : half;
      load(a.values, a.value_scales, at, some, from, width, true);
      if (warp * rows_of_a_warp >= count) continue;  // whole warps
      for (int key = 0; key < some; ++key) {
        TROIKA_UNROLL
        for (int r = 0; r < rows_of_a_warp; ++r) {
          const float w = __shfl_sync(all_lanes, weights[r], key);
          if (w == 0) continue;
          TROIKA_UNROLL
          for (int j = 0; j < wide; ++j) {
            const int feature = j * warp_size + lane - from;
            if (feature >= 0 && feature < width) sums[r][j] += w * s.tile[key][feature];
          }
        }
      }
    }
  }

  for (int r = 0; r < rows_of_a_warp; ++r) {
    const int row = warp * rows_of_a_warp + r;
    if (row >= count) break;
    const bool whole = a.splits == 1;
    float* const to =
        whole ? a.y + offset(row) * a.d : a.partial + (split * a.tokens * a.heads + offset(row)) * (a.d + 2);
    // No key at all: the sum of nothing is 0.
    const float scale = !whole ? 1.0f : total[r] == 0 ? 0.0f : 1 / total[r];
    for (int j = 0; j < wide; ++j) {
      const int feature = j * warp_size + lane;
      if (feature < a.d) to[feature] = sums[r][j] * scale;
    }
    if (!whole && lane == 0) {
      to[a.d] = largest[r];
      to[a.d + 1] = total[r];
    }
  }
}

// A block takes a row and adds the parts of its splits, each relative to the largest score of all.
static __global__ void __launch_bounds__(attention_threads)
    attention_merge_kernel(TROIKA_ARGUMENT AttentionArguments a) {
  const std::int64_t rows = a.tokens * a.heads, row = blockIdx.x;
  const auto part = [&](int split) { return a.partial + (split * rows + row) * (a.d + 2); };
  float most = -INFINITY, total = 0;
  for (int i = 0; i < a.splits; ++i) most = fmaxf(most, part(i)[a.d]);
  for (int i = 0; i < a.splits; ++i) {
    if (part(i)[a.d + 1] > 0) total += part(i)[a.d + 1] * expf(part(i)[a.d] - most);
  }
  for (int feature = static_cast<int>(threadIdx.x); feature < a.d; feature += attention_threads) {
    float sum = 0;
    for (int i = 0; i < a.splits; ++i) {
      if (part(i)[a.d + 1] > 0) sum += part(i)[feature] * expf(part(i)[a.d] - most);
    }
    a.y[row * a.d + feature] = total == 0 ? 0.0f : sum / total;
  }
}

inline void merge_attention(const AttentionArguments& a, cudaStream_t stream) {
  launch(attention_merge_kernel, dim3(static_cast<unsigned>(a.tokens * a.heads)), attention_threads, stream, a);
}

// Of one type of cache, so that several sources may compile what nvcc takes long for.
template <KvType type>
void attend(const AttentionArguments& a, dim3 blocks, cudaStream_t stream) {
  launch(a.d <= 64    ? attention_kernel<type, 2>
         : a.d <= 128 ? attention_kernel<type, 4>
                      : attention_kernel<type, 8>,
         blocks, attention_threads, stream, a);
}

// y = softmax(scale q kT) v, with zeros for a query that may read nothing. most_group: query heads of a KV head, at
// most. d <= most_head_dim.
inline void attention(const AttentionArguments& a, int most_group, cudaStream_t stream) {
  if (a.tokens == 0 || a.heads == 0 || a.d == 0) return;
  const std::int64_t rows = a.tokens * most_group;
  const dim3 blocks(static_cast<unsigned>((rows + attention_rows - 1) / attention_rows),
                    static_cast<unsigned>(a.kv_heads), static_cast<unsigned>(a.splits));
  switch (a.type) {
    case KvType::f32: attend<KvType::f32>(a, blocks, stream); break;
    case KvType::bf16: attend<KvType::bf16>(a, blocks, stream); break;
    case KvType::f16: attend<KvType::f16>(a, blocks, stream); break;
    case KvType::q8: attend<KvType::q8>(a, blocks, stream); break;
  }
  if (a.splits > 1) merge_attention(a, stream);
}

}  // namespace troika::cuda
