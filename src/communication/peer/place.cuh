// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kernels/peer_collectives.cuh>

#include "kernels.hpp"

namespace troika::cuda {

static_assert(most_ranks == most_peers);

template <class T>
Peers<T> peers_of(const PeerPlace& place) {
  Peers<T> peers{place.rank, place.world, place.patience, place.report, {}, {}, {}};
  for (int r = 0; r < place.world; ++r) {
    const auto i = static_cast<std::size_t>(r);
    peers.in[r] = reinterpret_cast<const T*>(place.in[i]);
    peers.staging[r] = reinterpret_cast<T*>(place.staging[i]);
    peers.signals[r] = reinterpret_cast<Signal*>(place.signals[i]);
  }
  return peers;
}

inline PeerParts parts_of(const PeerRanges& ranges) {
  PeerParts parts{};
  for (int r = 0; r <= most_peers; ++r) parts.begin[r] = ranges[static_cast<std::size_t>(r)];
  return parts;
}

// f(T{}, Op{})
template <class F>
void visit_reduction(DType dtype, Reduction reduction, F&& f) {
  visit(dtype, [&](auto element) {
    if (reduction == Reduction::sum)
      f(element, Sum{});
    else
      f(element, Max{});
  });
}

}  // namespace troika::cuda
