// SPDX-License-Identifier: Apache-2.0
// What attention.cu leaves to this file, so that all compile at once.
#include <kernels/attention_prompt.cuh>

namespace troika::cuda {

template void attend_up_to<bf16, 128>(const AttentionArguments&, std::int64_t, cudaStream_t);
template void attend_up_to<bf16, 256>(const AttentionArguments&, std::int64_t, cudaStream_t);

}  // namespace troika::cuda
