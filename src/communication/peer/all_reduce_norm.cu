// SPDX-License-Identifier: Apache-2.0
#include <kernels/peer_norm.cuh>

#include "place.cuh"

namespace troika::cuda {

void peer_all_reduce_norm(const PeerPlace& place, int shots, const AddedNorm& norm) {
  const auto rows = static_cast<std::int64_t>(norm.rows), d = static_cast<std::int64_t>(norm.d);
  const NormArguments arguments{nullptr, norm.residual, norm.weight, nullptr, norm.y, rows, d, norm.eps};
  // More blocks than rows would only wait for each other.
  const int blocks = static_cast<int>(std::clamp<std::int64_t>(rows, 1, place.blocks));
  const auto kernel = shots == 1 ? all_reduce_norm_one_shot : all_reduce_norm_two_shot;
  kernel(peers_of<float>(place), arguments, blocks, place.stream);
}

}  // namespace troika::cuda
