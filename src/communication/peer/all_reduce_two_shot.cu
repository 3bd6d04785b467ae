// SPDX-License-Identifier: Apache-2.0
#include "place.cuh"

namespace troika::cuda {

void peer_all_reduce_two_shot(const PeerPlace& place, DType dtype, Reduction reduction, std::byte* out,
                              std::int64_t count) {
  visit_reduction(dtype, reduction, [&]<class T, class Op>(T, Op) {
    all_reduce_two_shot<Op>(peers_of<T>(place), reinterpret_cast<T*>(out), count, place.blocks, place.stream);
  });
}

}  // namespace troika::cuda
