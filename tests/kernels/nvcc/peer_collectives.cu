// SPDX-License-Identifier: Apache-2.0
#include <kernels/peer_norm.cuh>

using namespace troika;

template <class T>
void collectives(const cuda::Peers<T>& peers, T* out, const cuda::PeerParts& parts, cudaStream_t stream) {
  cuda::all_reduce_one_shot(peers, out, parts.begin[1], 8, stream);
  cuda::all_reduce_two_shot(peers, out, parts.begin[1], 8, stream);
  cuda::reduce_scatter(peers, out, parts, 8, stream);
  cuda::all_gather(peers, out, parts, 8, stream);
}
template void collectives(const cuda::Peers<float>&, float*, const cuda::PeerParts&, cudaStream_t);
template void collectives(const cuda::Peers<f16>&, f16*, const cuda::PeerParts&, cudaStream_t);
template void collectives(const cuda::Peers<bf16>&, bf16*, const cuda::PeerParts&, cudaStream_t);

void sum_and_norm(const cuda::Peers<float>& peers, const cuda::NormArguments& a, cudaStream_t stream) {
  cuda::all_reduce_norm_one_shot(peers, a, 8, stream);
  cuda::all_reduce_norm_two_shot(peers, a, 8, stream);
}
