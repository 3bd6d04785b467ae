// SPDX-License-Identifier: Apache-2.0
#pragma once

// How the blocks of several GPUs wait for each other. Block b of a rank meets block b of every other rank, through
// flags in the memory of the one that waits, so that nobody polls over a wire.

#include <cstdint>

#include <kernels/language.cuh>

namespace troika::cuda {

inline constexpr int most_peers = 8, most_peer_blocks = 64;

// Of one rank, in its own memory, which all peers can write; zero at first.
struct Signal {
  // The last meeting that block [b] of rank [r] came to. Meetings are counted on and on, modulo 2^32, and nothing is
  // ever set back: a flag that a fast peer has set twice still says that it came.
  std::uint32_t arrived[most_peer_blocks][most_peers];
  std::uint32_t
      meetings[most_peer_blocks];  // so far; only this rank uses it. In memory, so that a graph can be replayed
  std::uint32_t late;              // 1 + a rank that did not come in time; from then on, kernels do nothing
};

// What every kernel over several GPUs gets. Pointers are those by which this GPU reaches the memory of rank [r].
template <class T>
struct Peers {
  int rank, world;
  std::uint64_t patience;  // nanoseconds until a rank that does not come counts as lost
  std::uint32_t* report;   // memory of the host that gets what Signal::late gets, or null
  const T* in[most_peers];
  T* staging[most_peers];
  Signal* signals[most_peers];
};

template <class T>
__device__ std::uint32_t meetings_so_far(const Peers<T>& p) {
  return p.signals[p.rank]->meetings[blockIdx.x];
}

// Thread r tells rank r that this block has come to meeting `number`, and waits until rank r has. False where it does
// not come. What the block did before a __syncthreads before this is seen by the others after a barrier after it.
template <class T>
__device__ bool meet(const Peers<T>& p, std::uint32_t number) {
  const int peer = static_cast<int>(threadIdx.x);
  if (peer >= p.world) return true;
  Signal& own = *p.signals[p.rank];
  if (load_acquire(&own.late) != 0) return false;
  store_release(&p.signals[peer]->arrived[blockIdx.x][p.rank], number);
  const std::uint64_t begin = nanoseconds();
  do {
    // The difference, since the count begins anew after 2^32.
    if (static_cast<std::int32_t>(load_acquire(&own.arrived[blockIdx.x][peer]) - number) >= 0) return true;
    pause();
  } while (nanoseconds() - begin < p.patience);
  store_release(&own.late, static_cast<std::uint32_t>(1 + peer));
  if (p.report) store_release(p.report, static_cast<std::uint32_t>(1 + peer));
  return false;
}

// Before anything of a peer is read: what it put into its memory before this kernel is there.
template <class T>
__device__ bool meet_at_entry(const Peers<T>& p, std::uint32_t number) {
  return __syncthreads_and(meet(p, number));
}
// Between two parts of a kernel: what peers wrote in the first can be read in the second.
template <class T>
__device__ bool meet_midway(const Peers<T>& p, std::uint32_t number) {
  __syncthreads();
  return __syncthreads_and(meet(p, number));
}
// After the last read of a peer's memory and a __syncthreads. A kernel that has ended is one whose rank nobody reads from
// any more, so that the next kernel may write there, and memory may be freed.
template <class T>
__device__ void meet_after_barrier(const Peers<T>& p, std::uint32_t number) {
  if (meet(p, number) && threadIdx.x == 0) p.signals[p.rank]->meetings[blockIdx.x] = number;
}
template <class T>
__device__ void meet_at_exit(const Peers<T>& p, std::uint32_t number) {
  __syncthreads();
  meet_after_barrier(p, number);
}

}  // namespace troika::cuda
