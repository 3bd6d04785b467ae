// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include <troika/communication/transport.hpp>
#include <troika/core/dtype.hpp>

// What kernels/peer_collectives.cuh does, for every type; the .cu files beside this one.
namespace troika::cuda {

inline constexpr int most_ranks = 8;

// Ranks that meet: pointers are those by which this rank reaches the memory of rank [r].
struct PeerPlace {
  int rank = 0, world = 1, blocks = 1;
  std::uint64_t patience = 0;       // nanoseconds
  std::uint32_t* report = nullptr;  // memory of the host: 1 + the rank that did not come
  std::array<std::byte*, most_ranks> in{}, staging{}, signals{};
  cudaStream_t stream = nullptr;

  std::byte* own() const { return in[static_cast<std::size_t>(rank)]; }
  std::byte* own_staging() const { return staging[static_cast<std::size_t>(rank)]; }
};

std::size_t peer_signal_bytes();  // zero at first, in the memory of each rank

// Elements: rank r has [begin[r], begin[r + 1]).
using PeerRanges = std::array<std::int64_t, most_ranks + 1>;

// From `in` of all ranks to `out`, which is not `in` of this rank.
void peer_all_reduce_one_shot(const PeerPlace& place, DType dtype, Reduction reduction, std::byte* out,
                              std::int64_t count);
// From `in` of all ranks to `out`, which may be `in` of this rank; `staging` holds its part of the elements.
void peer_all_reduce_two_shot(const PeerPlace& place, DType dtype, Reduction reduction, std::byte* out,
                              std::int64_t count);
// From `in` of all ranks: residual += their sum, y = its norm. `shots`: 1 or 2; with 2, `staging` holds as much as `in`.
void peer_all_reduce_norm(const PeerPlace& place, int shots, const AddedNorm& norm);
void peer_reduce_scatter(const PeerPlace& place, DType dtype, Reduction reduction, std::byte* out,
                         const PeerRanges& parts);
// sources: where rank r's part begins in its `in`.
void peer_all_gather(const PeerPlace& place, DType dtype, std::byte* out, const PeerRanges& parts,
                     const PeerRanges& sources);

}  // namespace troika::cuda
