// SPDX-License-Identifier: Apache-2.0
// What linear.cu leaves to this file, so that both compile at once.
#include <kernels/widen.cuh>

namespace troika::cuda {

template void widen<float>(WeightType, const std::uint8_t*, float*, std::int64_t, std::int64_t, cudaStream_t);
template void widen<f16>(WeightType, const std::uint8_t*, f16*, std::int64_t, std::int64_t, cudaStream_t);
template void widen<bf16>(WeightType, const std::uint8_t*, bf16*, std::int64_t, std::int64_t, cudaStream_t);

}  // namespace troika::cuda
