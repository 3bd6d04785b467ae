// SPDX-License-Identifier: Apache-2.0
#pragma once

// The sum over GPUs that can read each other's memory, with the residual and the RMSNorm that follow it in a
// transformer: what is summed goes from a thread's registers into both, and not through memory. A block takes a row, and
// the bits are those of all_reduce, addition and rms_norm.

#include <algorithm>
#include <cstdint>

#include <kernels/norm.cuh>
#include <kernels/peer_collectives.cuh>

namespace troika::cuda {

// In turns: a row's block begins on one of them while threads that are behind read the other.
struct PeerNormScratch {
  NormScratch of_turn[2];
};

// f(row, scratch), where row is its first element, for the rows of this block. Which rows these are does not depend on
// the rank, so that who reads a row midway reads what its own block's peers have written.
template <class F>
__device__ void for_each_row(const NormArguments& a, PeerNormScratch& scratch, F f) {
  int turn = 0;
  for (std::int64_t row = blockIdx.x; row < a.rows; row += gridDim.x, turn ^= 1) f(row * a.d, scratch.of_turn[turn]);
}

template <int N>
__global__ void __launch_bounds__(norm_threads, 2)
    all_reduce_norm_one_shot_kernel(TROIKA_ARGUMENT Peers<float> p, TROIKA_ARGUMENT NormArguments a) {
  TROIKA_SHARED(PeerNormScratch, scratch);
  const std::uint32_t met = meetings_so_far(p);
  if (!meet_at_entry(p, met + 1)) return;
  for_each_row(a, scratch, [&](std::int64_t row, NormScratch& of_row) {
    norm_row<false, N>(a, row, of_row, [&](std::int64_t i) { return reduce_over_ranks<N>(p, row + i); });
  });
  meet_after_barrier(p, met + 2);  // that of the last row's sum
}

// Each rank adds its `columns` of every row into its staging; then everyone reads all of them, and goes on alone.
template <int N>
__global__ void __launch_bounds__(norm_threads, 2)
    all_reduce_norm_two_shot_kernel(TROIKA_ARGUMENT Peers<float> p, TROIKA_ARGUMENT NormArguments a,
                                    std::int64_t columns) {
  TROIKA_SHARED(PeerNormScratch, scratch);
  const std::uint32_t met = meetings_so_far(p);
  if (!meet_at_entry(p, met + 1)) return;
  const std::int64_t own = p.rank * columns, end = own + columns < a.d ? own + columns : a.d;
  for_each_row(a, scratch, [&](std::int64_t row, NormScratch&) {
    for (std::int64_t i = own + std::int64_t{threadIdx.x} * N; i < end; i += std::int64_t{norm_threads} * N)
      store_pack(reduce_over_ranks<N>(p, row + i), p.staging[p.rank] + row + i);
  });
  if (!meet_midway(p, met + 2)) return;
  for_each_row(a, scratch, [&](std::int64_t row, NormScratch& of_row) {
    norm_row<false, N>(a, row, of_row, [&](std::int64_t i) {
      // Rows have less than 2^32 elements, of which a GPU divides faster.
      const auto holder = static_cast<std::uint32_t>(i) / static_cast<std::uint32_t>(columns);
      return load_pack<Pack<float, N>>(p.staging[holder] + row + i);
    });
  });
  meet_after_barrier(p, met + 3);
}

// The launchers. All ranks call the same one with the same sizes and number of blocks. residual += the sum of what the
// ranks have at `in` (rows, d), y = rms_norm(residual) weight; a.x is not read. residual and y are not `in` of this
// rank. Rows of a multiple of 4 elements begin at multiples of 16 bytes.
inline bool check_peer_norm(const Peers<float>& p, const NormArguments& a, int blocks) {
  check_peers(p, a.y, blocks);
  expects(a.d >= 1 && a.d < (std::int64_t{1} << 31) && !a.bias,
          "rows of a sum have 1 to 2^31 - 1 elements and no bias");
  expects(aligned(a.residual) && aligned(a.weight), "buffers of peers begin at multiples of 16 bytes");
  return a.d % 4 == 0;
}
inline void all_reduce_norm_one_shot(const Peers<float>& p, const NormArguments& a, int blocks, cudaStream_t stream) {
  const bool wide = check_peer_norm(p, a, blocks);
  launch(wide ? all_reduce_norm_one_shot_kernel<4> : all_reduce_norm_one_shot_kernel<1>,
         dim3(static_cast<unsigned>(blocks)), norm_threads, stream, p, a);
}
// Staging of each rank: as much as `in`.
inline void all_reduce_norm_two_shot(const Peers<float>& p, const NormArguments& a, int blocks, cudaStream_t stream) {
  const bool wide = check_peer_norm(p, a, blocks);
  launch(wide ? all_reduce_norm_two_shot_kernel<4> : all_reduce_norm_two_shot_kernel<1>,
         dim3(static_cast<unsigned>(blocks)), norm_threads, stream, p, a, two_shot_part<float>(a.d, p.world));
}

}  // namespace troika::cuda
