// SPDX-License-Identifier: Apache-2.0
// What attention.cu leaves to this file, so that both compile at once.
#include <kernels/attention.cuh>

namespace troika::cuda {

extern template void attend<KvType::f32>(const AttentionArguments&, dim3, cudaStream_t);
extern template void attend<KvType::bf16>(const AttentionArguments&, dim3, cudaStream_t);
template void attend<KvType::f16>(const AttentionArguments&, dim3, cudaStream_t);
template void attend<KvType::q8>(const AttentionArguments&, dim3, cudaStream_t);

}  // namespace troika::cuda
