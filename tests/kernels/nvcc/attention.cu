// SPDX-License-Identifier: Apache-2.0
#include <kernels/attention.cuh>
#include <kernels/candidates.cuh>

void attention_and_candidates(const troika::cuda::AttentionArguments& a, troika::Candidate* best, std::uint32_t* nan,
                              cudaStream_t stream) {
  attention(a, 4, stream);
  troika::cuda::top_candidates(a.q, a.tokens, 0, 4, best, best, nan, stream);
}
