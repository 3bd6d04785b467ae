// SPDX-License-Identifier: Apache-2.0
#include <kernels/attention_prompt.cuh>

void attention_prompt(const troika::cuda::AttentionArguments& a, cudaStream_t stream) {
  troika::cuda::attend_up_to<troika::bf16, 64>(a, a.tokens, stream);
  troika::cuda::attend_up_to<troika::f16, 64>(a, a.tokens, stream);
}
