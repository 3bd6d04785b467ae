// SPDX-License-Identifier: Apache-2.0
#pragma once

// Collectives over GPUs that can read each other's memory. Sums add as the binary tree of docs/architecture.md, in
// float, rounded once: every rank gets the same bits, and the host's transports give the same ones. Whole numbers wrap
// around; a NaN wins a maximum.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <kernels/element.cuh>
#include <kernels/peer_meeting.cuh>
#include <troika/core/error.hpp>

namespace troika::cuda {

// Blocks of 256, two of them resident on a multiprocessor: where more are wished for, nvcc spills registers.
inline constexpr int peer_threads = 256;

// Rank r has elements [begin[r], begin[r + 1]).
struct PeerParts {
  std::int64_t begin[most_peers + 1];
};

// Calls f(i, Pack) for elements [0, count) of a part, some for each thread of the grid, packs first. The thread that
// takes an element does not depend on the rank, so that who reads it midway reads what its own block's peers have
// written.
template <int N, class F>
__device__ void for_each_pack(std::int64_t count, F f) {
  const std::int64_t threads = std::int64_t{gridDim.x} * peer_threads;
  const std::int64_t thread = std::int64_t{blockIdx.x} * peer_threads + threadIdx.x;
  const std::int64_t whole = count / N * N;
  for (std::int64_t i = thread * N; i < whole; i += threads * N) f.template operator()<N>(i);
  for (std::int64_t i = whole + thread; i < count; i += threads) f.template operator()<1>(i);
}

// What becomes of two elements, as they are while they are reduced: float, or whole numbers of 32 bits.
struct Sum {
  static __device__ float combine(float a, float b) { return a + b; }
  static __device__ std::int32_t combine(std::int32_t a, std::int32_t b) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
  }
};
struct Max {
  template <class A>
  static __device__ A combine(A a, A b) {
    return b > a || b != b ? b : a;  // nothing is above a NaN
  }
};
template <class T>
using Reduced = std::conditional_t<std::is_integral_v<T>, std::int32_t, float>;
template <class T>
__device__ Reduced<T> widened(T value) {
  if constexpr (std::is_integral_v<T>)
    return value;
  else
    return to_float(value);
}
template <class T>
__device__ T narrowed(Reduced<T> value) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(value);
  else
    return from_float<T>(value);
}
// Of more elements at once, a thread could not keep those of all ranks in registers.
template <class T>
inline constexpr int reduced_at_once = pack_of<T> < 8 ? pack_of<T> : 8;

// Element i of all ranks, as a tree split at the largest power of two below their number: what a tree over most_peers
// leaves where those beyond the world are left out.
template <int N, class Op = Sum, class T>
__device__ Pack<T, N> reduce_over_ranks(const Peers<T>& p, std::int64_t i) {
  Reduced<T> values[most_peers][N];
  TROIKA_UNROLL
  for (int r = 0; r < most_peers; ++r) {
    if (r >= p.world) break;
    const auto pack = load_pack<Pack<T, N>>(p.in[r] + i);
    for (int j = 0; j < N; ++j) values[r][j] = widened(pack.at[j]);
  }
  TROIKA_UNROLL
  for (int step = 1; step < most_peers; step *= 2) {
    TROIKA_UNROLL
    for (int r = 0; r + step < most_peers; r += 2 * step) {
      if (r + step >= p.world) break;
      for (int j = 0; j < N; ++j) values[r][j] = Op::combine(values[r][j], values[r + step][j]);
    }
  }
  Pack<T, N> result;
  for (int j = 0; j < N; ++j) result.at[j] = narrowed<T>(values[0][j]);
  return result;
}

// Every rank reads everything from everyone: the least waiting, so the fastest for little.
template <class Op, class T, int N>
__global__ void __launch_bounds__(peer_threads, 2)
    all_reduce_one_shot_kernel(TROIKA_ARGUMENT Peers<T> p, T* out, std::int64_t count) {
  const std::uint32_t met = meetings_so_far(p);
  if (!meet_at_entry(p, met + 1)) return;
  for_each_pack<N>(count, [&]<int n>(std::int64_t i) { store_pack(reduce_over_ranks<n, Op>(p, i), out + i); });
  meet_at_exit(p, met + 2);
}

// Each rank adds its part of the elements into its staging, then everyone reads all parts: the least bytes over the
// wire.
template <class Op, class T, int N>
__global__ void __launch_bounds__(peer_threads, 2)
    all_reduce_two_shot_kernel(TROIKA_ARGUMENT Peers<T> p, T* out, TROIKA_ARGUMENT PeerParts parts) {
  const std::uint32_t met = meetings_so_far(p);
  if (!meet_at_entry(p, met + 1)) return;
  const std::int64_t own = parts.begin[p.rank];
  for_each_pack<N>(parts.begin[p.rank + 1] - own, [&]<int n>(std::int64_t i) {
    store_pack(reduce_over_ranks<n, Op>(p, own + i), p.staging[p.rank] + i);
  });
  if (!meet_midway(p, met + 2)) return;
  for (int r = 0; r < p.world; ++r) {
    const std::int64_t first = parts.begin[r];
    for_each_pack<N>(parts.begin[r + 1] - first, [&]<int n>(std::int64_t i) {
      store_pack(load_pack<Pack<T, n>>(p.staging[r] + i), out + first + i);
    });
  }
  meet_at_exit(p, met + 3);
}

template <class Op, class T, int N>
__global__ void __launch_bounds__(peer_threads, 2)
    reduce_scatter_kernel(TROIKA_ARGUMENT Peers<T> p, T* out, TROIKA_ARGUMENT PeerParts parts) {
  const std::uint32_t met = meetings_so_far(p);
  if (!meet_at_entry(p, met + 1)) return;
  const std::int64_t own = parts.begin[p.rank];
  for_each_pack<N>(parts.begin[p.rank + 1] - own,
                   [&]<int n>(std::int64_t i) { store_pack(reduce_over_ranks<n, Op>(p, own + i), out + i); });
  meet_at_exit(p, met + 2);
}

template <class T, int N>
__global__ void __launch_bounds__(peer_threads, 2)
    all_gather_kernel(TROIKA_ARGUMENT Peers<T> p, T* out, TROIKA_ARGUMENT PeerParts parts,
                      TROIKA_ARGUMENT PeerParts sources) {
  const std::uint32_t met = meetings_so_far(p);
  if (!meet_at_entry(p, met + 1)) return;
  for (int r = 0; r < p.world; ++r) {
    const std::int64_t first = parts.begin[r];
    for_each_pack<N>(parts.begin[r + 1] - first, [&]<int n>(std::int64_t i) {
      store_pack(load_pack<Pack<T, n>>(p.in[r] + sources.begin[r] + i), out + first + i);
    });
  }
  meet_at_exit(p, met + 2);
}

// The launchers. All ranks call the same one with the same sizes and number of blocks. All buffers begin at multiples
// of 16 bytes: packs are decided on alike everywhere. A rank's `in` and `staging` are not written by others, and nobody
// reads them once the kernel has ended. What is wrong at run time is in Signal::late.
template <class T>
void check_peers(const Peers<T>& p, const T* out, int blocks) {
  expects(p.world >= 1 && p.world <= most_peers && p.rank >= 0 && p.rank < p.world && blocks >= 1 &&
              blocks <= most_peer_blocks,
          "peers are 1 to 8 ranks, of 1 to 64 blocks each");
  bool all = aligned(out);
  for (int r = 0; r < p.world; ++r) all = all && aligned(p.in[r]) && aligned(p.staging[r]);
  expects(all, "buffers of peers begin at multiples of 16 bytes");
}
template <class T>
bool begins_at_packs(const Peers<T>& p, const PeerParts& parts) {
  return std::all_of(parts.begin, parts.begin + p.world, [](std::int64_t i) { return i % pack_of<T> == 0; });
}

// out (count) is not in[rank]: a peer may still read that.
template <class Op = Sum, class T>
void all_reduce_one_shot(const Peers<T>& p, T* out, std::int64_t count, int blocks, cudaStream_t stream) {
  check_peers(p, out, blocks);
  launch(all_reduce_one_shot_kernel<Op, T, reduced_at_once<T>>, dim3(static_cast<unsigned>(blocks)), peer_threads,
         stream, p, out, count);
}

// Elements of staging that each rank needs for an all-reduce in two shots: its part.
template <class T>
std::int64_t two_shot_part(std::int64_t count, int world) {
  return (count + pack_of<T> * world - 1) / (pack_of<T> * world) * pack_of<T>;
}
// out (count) may be in[rank].
template <class Op = Sum, class T>
void all_reduce_two_shot(const Peers<T>& p, T* out, std::int64_t count, int blocks, cudaStream_t stream) {
  check_peers(p, out, blocks);
  PeerParts parts{};
  for (int r = 0; r <= p.world; ++r) parts.begin[r] = std::min(count, r * two_shot_part<T>(count, p.world));
  launch(all_reduce_two_shot_kernel<Op, T, reduced_at_once<T>>, dim3(static_cast<unsigned>(blocks)), peer_threads,
         stream, p, out, parts);
}

// out: this rank's part of the sum of all in.
template <class Op = Sum, class T>
void reduce_scatter(const Peers<T>& p, T* out, const PeerParts& parts, int blocks, cudaStream_t stream) {
  check_peers(p, out, blocks);
  launch(begins_at_packs(p, parts) ? reduce_scatter_kernel<Op, T, reduced_at_once<T>> : reduce_scatter_kernel<Op, T, 1>,
         dim3(static_cast<unsigned>(blocks)), peer_threads, stream, p, out, parts);
}

// out: a part of what each rank has at in[rank], one after the other: what lies there from sources.begin[rank] on.
template <class T>
void all_gather(const Peers<T>& p, T* out, const PeerParts& parts, int blocks, cudaStream_t stream,
                const PeerParts& sources = {}) {
  check_peers(p, out, blocks);
  launch(begins_at_packs(p, parts) && begins_at_packs(p, sources) ? all_gather_kernel<T, pack_of<T>>
                                                                  : all_gather_kernel<T, 1>,
         dim3(static_cast<unsigned>(blocks)), peer_threads, stream, p, out, parts, sources);
}

}  // namespace troika::cuda
