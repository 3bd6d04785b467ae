// SPDX-License-Identifier: Apache-2.0
#include <kernels/embedding.cuh>
#include <kernels/gemv.cuh>
#include <kernels/gemv_bytes.cuh>

void weights(troika::WeightType type, const troika::cuda::GemvArguments& product,
             const troika::cuda::EmbeddingArguments& rows, cudaStream_t stream) {
  gemv(type, product, stream);
  embedding(type, rows, stream);
}

void weights_in_bytes(const troika::cuda::GemvArguments& product, troika::cuda::RoundedPiece* rounded,
                      cudaStream_t stream) {
  troika::cuda::gemv_bytes<troika::WeightType::q4_0>(product, rounded, 660, stream);
}
