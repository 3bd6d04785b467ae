// SPDX-License-Identifier: Apache-2.0
#include <kernels/embedding.cuh>
#include <kernels/gemv.cuh>

void weights(troika::WeightType type, const troika::cuda::GemvArguments& product,
             const troika::cuda::EmbeddingArguments& rows, cudaStream_t stream) {
  gemv(type, product, stream);
  embedding(type, rows, stream);
}
