// SPDX-License-Identifier: Apache-2.0
// What linear.cu leaves to this file, so that all compile at once.
#include <kernels/gemv_bytes.cuh>

namespace troika::cuda {

template void gemv_bytes<WeightType::q4_k>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);
template void gemv_bytes<WeightType::q5_k>(const GemvArguments&, RoundedPiece*, std::int64_t, cudaStream_t);

}  // namespace troika::cuda
