// SPDX-License-Identifier: Apache-2.0
#pragma once

// Keys and values become 8 bits with one scale for each head of a token: the largest becomes 127 or -127. A row that is
// not finite stays so: its scale is no number. A warp takes a row.

#include <cmath>
#include <cstdint>

#include <kernels/reduce.cuh>

namespace troika::cuda {

inline constexpr int kv_row_warps = 4, kv_row_threads = kv_row_warps * 32;

static __global__ void __launch_bounds__(kv_row_threads)
    store_8_bits_kernel(const float* x, std::int64_t rows, int d, std::int8_t* y, float* scales) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kv_row_warps + threadIdx.x / warp_size;
  if (row >= rows) return;  // whole warps
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  float most = 0, sum = 0;
  for (int i = lane; i < d; i += warp_size) {
    const float value = x[row * d + i];
    most = fmaxf(most, fabsf(value));
    sum += value - value;  // 0, but for what is not finite
  }
  most = warp_max(most);
  const bool finite = warp_sum(sum) == 0;
  const float wanted = 127 / most;
  const float inverse = finite && wanted - wanted == 0 ? wanted : 0.0f;
  for (int i = lane; i < d; i += warp_size)
    y[row * d + i] = static_cast<std::int8_t>(finite ? rintf(x[row * d + i] * inverse) : 0.0f);
  if (lane == 0) scales[row] = finite ? most / 127 : NAN;
}

// x, y (rows, d), scales (rows)
inline void store_8_bits(const float* x, std::int64_t rows, int d, std::int8_t* y, float* scales, cudaStream_t stream) {
  if (rows == 0 || d == 0) return;
  const dim3 blocks(static_cast<unsigned>((rows + kv_row_warps - 1) / kv_row_warps));
  launch(store_8_bits_kernel, blocks, kv_row_threads, stream, x, rows, d, y, scales);
}

}  // namespace troika::cuda
