// SPDX-License-Identifier: Apache-2.0
#pragma once

// y = x W^T + bias for few rows of x in 8 bits (rounded.cuh) and quantised W as files have it.
//
// Blocks of 17 to 210 bytes begin anywhere. So a warp copies pieces of its rows to shared memory as they lie, in aligned
// 16 bytes and beside its work, and takes them apart there: memory is read from front to back, each byte once, and all
// other readers of weights find them as in the file. With what a lane takes of a piece its words lie in banks of their
// own for nearly all types. Two pieces of each row are under way: 4.6 KB a warp with 4.5 bits a weight. Shared memory
// holds 5 blocks of 4 warps on H100 and H200, 90 KB; 16 to 29 KB are needed (gemv.cuh).
//
// A warp takes two rows of W at once, so that what it reads of x, more bytes than of W, serves both. One row of x is
// rounded by each block itself while the first pieces come: a kernel of its own would take as long as many a product.

#include <algorithm>
#include <cstdint>

#include <kernels/gemv_arguments.cuh>
#include <kernels/rounded.cuh>
#include <kernels/weight_bytes.cuh>

namespace troika::cuda {

template <WeightType type>
struct PieceOf {
  static constexpr int bytes = static_cast<int>(row_bytes(type, piece_elements));
  static_assert(bytes % 16 == 0);  // so that all pieces of a row begin as far from a multiple of 16
  // Rows of W; those of Q8_0 are as many bytes as x, and two of Q3_K do not fit in registers with 8 rows of x.
  static constexpr int together = type == WeightType::q8_0 || type == WeightType::q3_k ? 1 : 2, under_way = 2;
  static_assert(gemv_row_step % together == 0);
  // Copies begin at multiples of 16 bytes, up to 15 before the piece, and words are read up to 7 bytes after it.
  struct alignas(16) Slot {
    std::uint8_t at[bytes + 32];
  };
  struct Slots {
    Slot of[under_way][together];
  };
};

inline constexpr int own_pieces = 8;  // of one row of x that a block rounds itself
inline constexpr int rows_of_x = 8;   // of others, that a warp takes at once
// Of a multiprocessor, as many as have room. With more rows of W than these take, each goes on to others: copies never
// stop between rows, and x is rounded once for all of a block's.
inline constexpr std::int64_t gemv_blocks = 5;

template <WeightType type, bool own>
struct GemvBytesShared {
  typename PieceOf<type>::Slots slots[gemv_warps];
  RoundedPiece x[own ? own_pieces : 1];
};

__device__ inline int past_16(const void* address) {
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(address) % 16);
}

// own: x is one row, rounded here. Else `rounded` has the rows, of which this takes M, or those that there are.
template <WeightType type, bool own>
__global__ void __launch_bounds__(gemv_threads)
    gemv_bytes_kernel(TROIKA_ARGUMENT GemvArguments a, std::int64_t row_size, const RoundedPiece* rounded) {
  constexpr int M = own ? 1 : rows_of_x;
  using Piece = PieceOf<type>;
  using Shared = GemvBytesShared<type, own>;
  constexpr bool crossed = groups_are_crossed(type);
  constexpr int together = Piece::together, under_way = Piece::under_way;
  TROIKA_SHARED(Shared, shared);
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const int first = static_cast<int>(blockIdx.y) * M,
            first_n = (static_cast<int>(blockIdx.x) * gemv_warps + warp) * together,
            step_n = static_cast<int>(gridDim.x) * gemv_warps * together;
  const int k = static_cast<int>(a.k), pieces = static_cast<int>(rounded_pieces(a.k));
  const auto row = [&](int n, int r) {  // the last one once more where W has no other
    const GemvProduct& p = product_of(a, n);
    return p.weights + row_of(p, n + r) * row_size;
  };
  // Copies begin at the multiple of 16 bytes at which a piece does, or before it, and go on to the rows that come next.
  int next_n = first_n;
  int next_piece = 0;
  const std::uint8_t* from[together];  // of this lane, in the row's first 512 bytes
  int end[together];                   // of the row, from there
  const auto begin_rows = [&] {
    for (int r = 0; r < together; ++r) {
      const int past = past_16(row(next_n, r)) - 16 * lane;
      from[r] = row(next_n, r) - past;
      end[r] = static_cast<int>(row_size) + past;
    }
  };
  const auto copy = [&](int slot) {
    if (next_n < a.n) {
      if (next_piece == 0) begin_rows();
      const int at_piece = next_piece * Piece::bytes;
      for (int r = 0; r < together; ++r) {
        std::uint8_t* const to = shared.slots[warp].of[slot][r].at + 16 * lane;
        const int rest = end[r] - at_piece;
        TROIKA_UNROLL
        for (int at = 0; at < Piece::bytes + 15; at += 16 * warp_size) {
          // Where the row goes on after the piece, 16 bytes too many do no harm.
          if (at < rest && (at + 16 * warp_size <= Piece::bytes || at + 16 * lane <= Piece::bytes))
            copy_later(to + at, from[r] + at_piece + at, rest - at < 16 ? rest - at : 16);
        }
      }
      if (++next_piece == pieces) {
        next_piece = 0;
        next_n += step_n;
      }
    }
    end_of_copies();
  };
  for (int slot = 0; slot < under_way; ++slot) copy(slot);

  if constexpr (own) {
    round_row<crossed, gemv_threads>(a.x, k, shared.x);
    __syncthreads();
  }
  int slot = 0;
  for (int n = first_n; n < a.n; n += step_n) {
    float sums[together][M] = {};
    int before[together];
    for (int r = 0; r < together; ++r) before[r] = past_16(row(n, r));
    for (int piece = 0; piece < pieces; ++piece) {
      wait_for_copies<under_way - 1>();
      __syncwarp();  // what other lanes copied
      const int rest = k - piece * piece_elements;
      if (32 * group_of<crossed>(lane, 0) < rest) {
        TwoGroups<type> w[together];
        for (int r = 0; r < together; ++r) w[r] = two_groups<type>(shared.slots[warp].of[slot][r].at + before[r], lane);
        TROIKA_UNROLL
        for (int m = 0; m < M; ++m) {
          if (M > 1 && first + m >= a.m) break;
          const RoundedPiece& x = own ? shared.x[piece] : rounded[std::int64_t{first + m} * pieces + piece];
          TROIKA_UNROLL
          for (int g = 0; g < 2; ++g) {
            if (layout_of(type).block == 32 && 32 * group_of<crossed>(lane, g) >= rest) break;
            std::uint32_t words[8];
            for (int half = 0; half < 2; ++half) {
              const auto four = load_pack<Pack<std::uint32_t, 4>>(x.words[2 * g + half][lane]);
              for (int i = 0; i < 4; ++i) words[4 * half + i] = four.at[i];
            }
            const RoundedGroup of_x = x.groups[g][lane];
            for (int r = 0; r < together; ++r) sums[r][m] += dot_group(w[r], g, words, of_x);
          }
        }
      }
      if (next_n < a.n) __syncwarp();  // all lanes have read what the next copy overwrites
      copy(slot);
      slot = (slot + 1) % under_way;
    }
    const GemvProduct& p = product_of(a, n);
    TROIKA_UNROLL
    for (int m = 0; m < M; ++m)
      for (int r = 0; r < together; ++r) put_sum(a, p, first + m, n + r, sums[r][m]);
  }
}

inline std::int64_t gemv_rounded_pieces(std::int64_t m, std::int64_t k) {
  const std::int64_t pieces = rounded_pieces(k);
  return m == 1 && pieces <= own_pieces ? 0 : m * pieces;
}

// W, x and y begin at multiples of 16 bytes; k is a multiple of the type's block. `rounded`: gemv_rounded_pieces(m, k).
// most_blocks: gemv_blocks for each multiprocessor.
template <WeightType type>
void gemv_bytes(const GemvArguments& a, RoundedPiece* rounded, std::int64_t most_blocks, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  const auto row_size = static_cast<std::int64_t>(row_bytes(type, a.k));
  const auto start = [&]<bool own>(std::bool_constant<own>) {
    constexpr int M = own ? 1 : rows_of_x;
    constexpr std::int64_t each = gemv_warps * PieceOf<type>::together;
    const dim3 blocks(static_cast<unsigned>(std::min<std::int64_t>((a.n + each - 1) / each, most_blocks)),
                      static_cast<unsigned>((a.m + M - 1) / M));
    launch(gemv_bytes_kernel<type, own>, blocks, gemv_threads, stream, a, row_size,
           static_cast<const RoundedPiece*>(rounded));
  };
  if (gemv_rounded_pieces(a.m, a.k) == 0) {
    start(std::true_type{});
    return;
  }
  round_rows<groups_are_crossed(type)>(a.x, a.m, a.k, rounded, stream);
  start(std::false_type{});
}

}  // namespace troika::cuda
