// SPDX-License-Identifier: Apache-2.0
#pragma once

// Softmax of rows. A block takes a row; its largest value is taken away first, so that no exp overflows.

#include <cmath>
#include <cstdint>

#include <kernels/reduce.cuh>

namespace troika::cuda {

inline constexpr int softmax_threads = 256;
struct SoftmaxScratch {
  BlockScratch<softmax_threads> largest, sum;
};

static __global__ void __launch_bounds__(softmax_threads) softmax_kernel(const float* x, float* y, std::int64_t d) {
  TROIKA_SHARED(SoftmaxScratch, scratch);
  const std::int64_t row = std::int64_t{blockIdx.x} * d;
  float largest = -INFINITY;
  for (std::int64_t i = threadIdx.x; i < d; i += softmax_threads) largest = fmaxf(largest, x[row + i]);
  largest = block_max(largest, scratch.largest);
  float sum = 0;
  for (std::int64_t i = threadIdx.x; i < d; i += softmax_threads) sum += expf(x[row + i] - largest);
  const float scale = 1 / block_sum(sum, scratch.sum);
  for (std::int64_t i = threadIdx.x; i < d; i += softmax_threads) y[row + i] = expf(x[row + i] - largest) * scale;
}

// y (rows, d) may be x.
inline void softmax(const float* x, float* y, std::int64_t rows, std::int64_t d, cudaStream_t stream) {
  if (rows == 0 || d == 0) return;
  launch(softmax_kernel, dim3(static_cast<unsigned>(rows)), softmax_threads, stream, x, y, d);
}

}  // namespace troika::cuda
