// SPDX-License-Identifier: Apache-2.0
#include "place.cuh"

namespace troika::cuda {

void peer_reduce_scatter(const PeerPlace& place, DType dtype, Reduction reduction, std::byte* out,
                         const PeerRanges& parts) {
  visit_reduction(dtype, reduction, [&]<class T, class Op>(T, Op) {
    reduce_scatter<Op>(peers_of<T>(place), reinterpret_cast<T*>(out), parts_of(parts), place.blocks, place.stream);
  });
}

}  // namespace troika::cuda
