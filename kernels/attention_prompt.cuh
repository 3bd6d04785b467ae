// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention of many rows on tensor cores, after FlashAttention-2: products in bf16, or in f16 where the cache is of it,
// sums in float. A block takes 64 or 128 rows, (token, query head) pairs that read one KV head, so that a tile of keys
// and values serves them all; a warp has whole rows, 16 or 32, with sums and most of the queries in registers. What
// multiply_add gives as scores it takes as weights. Keys and values go through shared memory, where a tile arrives while
// the one before it is computed with.
//
// What bounds it, for d = 128 on an H100: a tile of 32 keys is 4 * 32 * 32 * 128 operations of a warp, 128 instructions
// of mma, one of which takes a quarter of a multiprocessor 4 cycles at the tensor cores' full rate, and by what others
// have measured of mma.sync about 6.4: 820 cycles. The 32 exponentials of a lane take 256, and the 20 KiB that a warp
// reads of shared memory 160, which four quarters share: 640. So mma is the limit, about 600 of 989 TFLOP/s, and other
// warps have to fill in what a warp does between products: two blocks share a multiprocessor, with 255 registers a
// thread at most. A tile is 16 KiB from the L2 for 2 * 10^6 operations of 128 rows: 4.7 TB/s at that limit.

#include <cmath>
#include <cstdint>

#include <kernels/attention_arguments.cuh>
#include <kernels/element.cuh>

namespace troika::cuda {

// Features at most, rows of a warp in sixteens, keys of a tile: as many as leave two blocks their registers.
template <int d>
struct PromptTiles {
  static constexpr int sixteens = d > 128 ? 1 : 2;
  static constexpr int rows = attention_warps * sixteens * 16;  // of a block
  static constexpr int keys = d > 128 ? 16 : d > 64 ? 32 : 64;
  static constexpr int step = d > 64 ? 16 : 32;  // keys whose scores a warp has at once
  // Queries, sixteen features at a time, are in registers as far as these suffice, and then in shared memory.
  static constexpr int shared = d > 128 ? 6 : d > 96 ? 2 : 1, kept = d / 16 - shared;
  // 16 bytes past the features keep rows that are read at once in different banks.
  static constexpr int width = d + 8;
};

struct Keys {
  int begin, end;
};
__device__ inline Keys keys_of(const AttentionArguments& a, int token) {
  const KeyRange range = readable(a, token);
  return {static_cast<int>(range.begin), static_cast<int>(range.end)};
}

template <int d>
using PromptTile = std::uint16_t[PromptTiles<d>::keys][PromptTiles<d>::width];

template <int d>
struct PromptScratch {
  // Two of keys and values: one is computed with, one arrives.
  alignas(16) PromptTile<d> tiles[2][2];
  Pack<std::uint32_t, 4> queries[PromptTiles<d>::shared][PromptTiles<d>::sixteens][attention_threads];
  // What would take registers from others: the keys of the block and where its tiles end, the keys of each row, and where
  // a thread's rows are in (tokens, heads), or -1.
  Keys all;
  int end;
  Keys of_rows[PromptTiles<d>::rows];
  int offsets[2 * PromptTiles<d>::sixteens][attention_threads];
};

inline constexpr float log2_e = 1.44269504f, ln_2 = 0.69314718f;
// A row's weights are relative to a score that may be this much, in powers of two, below its largest: sums are rarely
// scaled then.
inline constexpr float most_above = 8;

// Eight of an f32 or q8 cache from element `at` on, which is in `row`.
template <class T>
__device__ Pack<std::uint32_t, 4> converted(KvType type, const std::uint8_t* data, const float* scales,
                                            std::int64_t row, std::int64_t at) {
  Pack<float, 4> values[2];
  if (type == KvType::f32) {
    const auto* const from = reinterpret_cast<const float*>(data) + at;
    for (int i = 0; i < 2; ++i) values[i] = load_pack<Pack<float, 4>>(from + 4 * i);
  } else {
    const auto bytes = load_pack<Pack<std::int8_t, 8>>(reinterpret_cast<const std::int8_t*>(data) + at);
    for (int i = 0; i < 8; ++i) values[i / 4].at[i % 4] = scales[row] * static_cast<float>(bytes.at[i]);
  }
  Pack<std::uint32_t, 4> result;
  for (int i = 0; i < 4; ++i) result.at[i] = pair_of<T>(values[i / 2].at[i % 2 * 2], values[i / 2].at[i % 2 * 2 + 1]);
  return result;
}

// Keys and values from `first` on, those of `range`, as T; zeros for others and past the features. What has to be
// converted is waited for here, while other blocks compute.
template <class T, int d>
__device__ void load_tile(const AttentionArguments& a, int kv, int first, Keys range, PromptTile<d> (&to)[2]) {
  constexpr unsigned eights = d / 8, each = PromptTiles<d>::keys * eights;
  static_assert(each % attention_threads == 0);
  const std::int64_t begin = kv_row(a, first);  // a tile is on one page
  TROIKA_ROLLED
  for (unsigned i = threadIdx.x; i < 2 * each; i += attention_threads) {
    const bool value = i >= each;
    const int key = static_cast<int>(i % each / eights), feature = static_cast<int>(i % eights * 8);
    const bool there = first + key >= range.begin && first + key < range.end && feature < a.d;
    const std::int64_t row = (begin + key) * a.kv_heads + kv, at = row * a.d + feature;
    const std::uint8_t* const data = value ? a.values : a.keys;
    std::uint16_t* const target = &to[value ? 1 : 0][key][feature];
    if (sizeof(T) == static_cast<std::size_t>(bytes_of(a.type))) {  // then it is T
      copy_later(target, there ? data + at * 2 : data, there ? 16 : 0);
    } else {
      const float* const scales = value ? a.value_scales : a.key_scales;
      store_pack(there ? converted<T>(a.type, data, scales, row, at) : Pack<std::uint32_t, 4>{},
                 reinterpret_cast<std::uint32_t*>(target));
    }
  }
  end_of_copies();
}

// T is f16 where the cache is of it, else bf16.
template <class T, int most_d>
__global__ void __launch_bounds__(attention_threads, 2) prompt_attention_kernel(TROIKA_ARGUMENT AttentionArguments a) {
  using Tiles = PromptTiles<most_d>;
  constexpr int sixteens = Tiles::sixteens, keys = Tiles::keys, step = Tiles::step;
  TROIKA_SHARED(PromptScratch<most_d>, s);
  const int kv = static_cast<int>(blockIdx.y), split = static_cast<int>(blockIdx.z);
  const int group = a.start[kv + 1] - a.start[kv], rows = group * static_cast<int>(a.tokens);
  // Later rows may read more keys: they begin first.
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * Tiles::rows;
  if (first >= rows) return;
  const int last = (first + Tiles::rows < rows ? first + Tiles::rows : rows) - 1;
  const int warp = static_cast<int>(threadIdx.x) / warp_size, lane = static_cast<int>(threadIdx.x) % warp_size;
  const int g = lane / 4, t = lane % 4;  // as multiply_add says
  const int first_of_warp = first + warp * sixteens * 16;
  // Row i of a lane; some are past the last.
  const auto row_of = [&](int i) { return first_of_warp + i * 8 + g; };
  const auto offset = [&](int row) {  // of a row in (tokens, heads)
    return static_cast<std::int64_t>(row / group) * a.heads + a.grouped[a.start[kv] + row % group];
  };

  std::uint32_t queries[Tiles::kept][sixteens][4];
  const float scale = a.cap > 0 ? a.scale / a.cap : a.scale * log2_e;
  TROIKA_UNROLL
  for (int i = 0; i < 2 * sixteens; ++i) {
    const bool used = row_of(i) <= last;
    const float* const q = a.q + (used ? offset(row_of(i)) * a.d : 0);
    TROIKA_UNROLL
    for (int j = 0; j < most_d / 8; ++j) {
      const int feature = j * 8 + 2 * t, k = j / 2, at = i % 2 + j % 2 * 2;
      Pack<float, 2> two{};
      if (used && feature < a.d) two = load_pack<Pack<float, 2>>(q + feature);
      const std::uint32_t word = pair_of<T>(scale * two.at[0], scale * two.at[1]);
      if (k < Tiles::kept)
        queries[k][i / 2][at] = word;
      else
        s.queries[k - Tiles::kept][i / 2][threadIdx.x].at[at] = word;
    }
  }

  // The keys that these rows read, in tiles that begin at multiples of their size, and this block's part of them.
  const Keys all{keys_of(a, first / group).begin, keys_of(a, last / group).end};
  const int first_tile = all.begin / keys, tiles = (all.end + keys - 1) / keys - first_tile;
  const auto first_of_split = [&](int n) {
    return (first_tile + static_cast<int>(std::int64_t{tiles} * n / a.splits)) * keys;
  };
  const int begin = first_of_split(split), end = first_of_split(split + 1);
  for (int i = static_cast<int>(threadIdx.x); i < Tiles::rows; i += attention_threads) {
    const int row = first + i < last ? first + i : last;
    const bool used = first + i / (sixteens * 16) * (sixteens * 16) <= last;  // some row of its warp is
    s.of_rows[i] = used ? keys_of(a, row / group) : Keys{0, 0};
  }
  if (threadIdx.x == 0) {
    s.all = all;
    s.end = end;
  }
  for (int i = 0; i < 2 * sixteens; ++i)
    s.offsets[i][threadIdx.x] = row_of(i) <= last ? static_cast<int>(offset(row_of(i))) : -1;

  float sums[sixteens][most_d / 8][4] = {}, largest[2 * sixteens], total[2 * sixteens] = {};
  for (float& value : largest) value = -INFINITY;
  int stage = 0, at = begin;
  if (at < end) load_tile<T, most_d>(a, kv, at, all, s.tiles[stage]);
  for (bool more = at < end; more; more = at < s.end, stage ^= 1) {
    wait_for_copies<0>();
    __syncthreads();  // all of this tile are there, and the tile before it was read
    at += keys;
    if (at < s.end) load_tile<T, most_d>(a, kv, at, s.all, s.tiles[stage ^ 1]);
    TROIKA_ROLLED
    for (int skipped = 0; skipped < keys; skipped += step) {
      const int from = at - keys + skipped;
      // The keys that some row of this warp reads are those from its first row's to its last one's.
      const Keys of_first = s.of_rows[warp * sixteens * 16], of_last = s.of_rows[(warp + 1) * sixteens * 16 - 1];
      if (from + step <= of_first.begin || from >= of_last.end) continue;  // whole warps
      float scores[sixteens][step / 8][4] = {};
      TROIKA_UNROLL
      for (int k = 0; k < most_d / 16; ++k) {
        std::uint32_t q[sixteens][4];
        TROIKA_UNROLL
        for (int m = 0; m < sixteens; ++m) {
          Pack<std::uint32_t, 4> part;
          if (k >= Tiles::kept) part = s.queries[k - Tiles::kept][m][threadIdx.x];
          TROIKA_UNROLL
          for (int i = 0; i < 4; ++i) q[m][i] = k < Tiles::kept ? queries[k][m][i] : part.at[i];
        }
        TROIKA_UNROLL
        for (int n = 0; n < step / 16; ++n) {
          std::uint32_t b[4];
          load_matrices<false>(
              b, &s.tiles[stage][0][skipped + n * 16 + lane / 16 * 8 + lane % 8][k * 16 + lane / 8 % 2 * 8]);
          TROIKA_UNROLL
          for (int m = 0; m < sixteens; ++m) {
            multiply_add<T>(scores[m][2 * n], q[m], b[0], b[1]);
            multiply_add<T>(scores[m][2 * n + 1], q[m], b[2], b[3]);
          }
        }
      }
      // Of a lane: element 2 r + e of scores[m][n] is of its row 2 m + r and of key from + 8 n + 2 t + e.
      if (a.cap > 0) {
        TROIKA_UNROLL
        for (int i = 0; i < sixteens * step / 2; ++i) {
          float& score = scores[i * 2 / step][i / 4 % (step / 8)][i % 4];
          score = a.cap * log2_e * tanhf(score);
        }
      }
      if (from < of_last.begin || from + step > of_first.end) {
        TROIKA_UNROLL
        for (int i = 0; i < 2 * sixteens; ++i) {
          const Keys own = s.of_rows[warp * sixteens * 16 + i * 8 + g];
          const int before = own.begin - from - 2 * t, after = own.end - from - 2 * t;
          TROIKA_UNROLL
          for (int n = 0; n < step / 8; ++n) {
            TROIKA_UNROLL
            for (int e = 0; e < 2; ++e) {
              if (n * 8 + e < before || n * 8 + e >= after) scores[i / 2][n][i % 2 * 2 + e] = -INFINITY;
            }
          }
        }
      }
      TROIKA_UNROLL
      for (int i = 0; i < 2 * sixteens; ++i) {
        auto& row = scores[i / 2];
        const int r = i % 2 * 2;
        float most = -INFINITY;
        TROIKA_UNROLL
        for (int n = 0; n < step / 8; ++n) most = fmaxf(most, fmaxf(row[n][r], row[n][r + 1]));
        for (int other = 1; other < 4; other *= 2) most = fmaxf(most, __shfl_xor_sync(all_lanes, most, other));
        if (most > largest[i] + most_above) {
          const float keep = exp2_fast(largest[i] - most);
          largest[i] = most;
          total[i] *= keep;
          TROIKA_UNROLL
          for (int n = 0; n < most_d / 8; ++n) {
            sums[i / 2][n][r] *= keep;
            sums[i / 2][n][r + 1] *= keep;
          }
        }
        const float base = largest[i] == -INFINITY ? 0.0f : largest[i];  // nothing to read so far
        TROIKA_UNROLL
        for (int n = 0; n < step / 8; ++n) {
          row[n][r] = exp2_fast(row[n][r] - base);
          row[n][r + 1] = exp2_fast(row[n][r + 1] - base);
          total[i] += row[n][r] + row[n][r + 1];
        }
      }
      TROIKA_UNROLL
      for (int k = 0; k < step / 16; ++k) {
        std::uint32_t weights[sixteens][4];
        TROIKA_UNROLL
        for (int m = 0; m < sixteens; ++m) {
          TROIKA_UNROLL
          for (int i = 0; i < 4; ++i) {
            const auto& two = scores[m][2 * k + i / 2];
            weights[m][i] = pair_of<T>(two[i % 2 * 2], two[i % 2 * 2 + 1]);
          }
        }
        TROIKA_UNROLL
        for (int n = 0; n < most_d / 16; ++n) {
          std::uint32_t b[4];
          load_matrices<true>(b, &s.tiles[stage][1][skipped + k * 16 + lane % 16][n * 16 + lane / 16 * 8]);
          TROIKA_UNROLL
          for (int m = 0; m < sixteens; ++m) {
            multiply_add<T>(sums[m][2 * n], weights[m], b[0], b[1]);
            multiply_add<T>(sums[m][2 * n + 1], weights[m], b[2], b[3]);
          }
        }
      }
    }
  }

  TROIKA_UNROLL
  for (int i = 0; i < 2 * sixteens; ++i) {
    for (int other = 1; other < 4; other *= 2) total[i] += __shfl_xor_sync(all_lanes, total[i], other);
    const std::int64_t offset_of_row = s.offsets[i][threadIdx.x];
    if (offset_of_row < 0) continue;
    const bool whole = a.splits == 1;
    float* const to =
        whole ? a.y + offset_of_row * a.d : a.partial + (split * a.tokens * a.heads + offset_of_row) * (a.d + 2);
    // No key at all: the sum of nothing is 0.
    const float factor = !whole ? 1.0f : total[i] == 0 ? 0.0f : 1 / total[i];
    TROIKA_UNROLL
    for (int n = 0; n < most_d / 8; ++n) {
      const int feature = n * 8 + 2 * t;
      const auto& two = sums[i / 2][n];
      if (feature < a.d) store_pack(Pack<float, 2>{two[i % 2 * 2] * factor, two[i % 2 * 2 + 1] * factor}, to + feature);
    }
    if (!whole && t == 0) {
      to[a.d] = largest[i] * ln_2;
      to[a.d + 1] = total[i];
    }
  }
}

// Of heads of up to most_d features, so that several sources may compile what nvcc takes long for. `rows`: of a KV
// head, at most.
template <class T, int most_d>
void attend_up_to(const AttentionArguments& a, std::int64_t rows, cudaStream_t stream) {
  constexpr int each = PromptTiles<most_d>::rows;
  launch(prompt_attention_kernel<T, most_d>,
         dim3(static_cast<unsigned>((rows + each - 1) / each), static_cast<unsigned>(a.kv_heads),
              static_cast<unsigned>(a.splits)),
         attention_threads, stream, a);
}

template <class T>
void attend_prompt(const AttentionArguments& a, std::int64_t rows, cudaStream_t stream) {
  if (a.d <= 64) return attend_up_to<T, 64>(a, rows, stream);
  if (a.d <= 96) return attend_up_to<T, 96>(a, rows, stream);
  if (a.d <= 128) return attend_up_to<T, 128>(a, rows, stream);
  attend_up_to<T, 256>(a, rows, stream);
}

}  // namespace troika::cuda
