// SPDX-License-Identifier: Apache-2.0
#include "place.cuh"

namespace troika::cuda {

// Nothing is computed: only the size of an element matters.
void peer_all_gather(const PeerPlace& place, DType dtype, std::byte* out, const PeerRanges& parts,
                     const PeerRanges& sources) {
  const auto gather = [&]<class T>(T) {
    all_gather(peers_of<T>(place), reinterpret_cast<T*>(out), parts_of(parts), place.blocks, place.stream,
               parts_of(sources));
  };
  switch (size_of(dtype)) {
    case 4: return gather(float{});
    case 2: return gather(bf16{});
    default: return gather(std::uint8_t{});
  }
}

}  // namespace troika::cuda
