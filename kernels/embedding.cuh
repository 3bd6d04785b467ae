// SPDX-License-Identifier: Apache-2.0
#pragma once

// Rows of a table that is split by rows: this rank holds rows [first, first + rows) of the vocabulary. An id of another
// shard gives zeros, so that the sum over the ranks is the embedding. A block takes a token.

#include <cstdint>

#include <kernels/weights.cuh>

namespace troika::cuda {

struct EmbeddingArguments {
  const std::int32_t* ids;    // (tokens)
  const std::uint8_t* table;  // (rows, d), as stored
  float* y;                   // (tokens, d)
  std::int64_t tokens, rows, d, first;
};

inline constexpr int embedding_threads = 128;

template <WeightType type>
__global__ void __launch_bounds__(embedding_threads)
    embedding_kernel(TROIKA_ARGUMENT EmbeddingArguments a, std::int64_t row_size) {
  const std::int64_t token = blockIdx.x, row = a.ids[token] - a.first;
  const bool own = row >= 0 && row < a.rows;
  for (std::int64_t i = std::int64_t{threadIdx.x} * 8; i < a.d; i += embedding_threads * 8) {
    const Eight values = own ? weights_at<type>(a.table + row * row_size, i, a.d) : Eight{};
    for (int j = 0; j < 8 && i + j < a.d; ++j) a.y[token * a.d + i + j] = values.at[j];
  }
}

inline void embedding(WeightType type, const EmbeddingArguments& a, cudaStream_t stream) {
  if (a.tokens == 0) return;
  with_weight_type(type, [&]<WeightType t>(TypeConstant<t>) {
    launch(embedding_kernel<t>, dim3(static_cast<unsigned>(a.tokens)), embedding_threads, stream, a,
           static_cast<std::int64_t>(row_bytes(t, a.d)));
  });
}

}  // namespace troika::cuda
