// SPDX-License-Identifier: Apache-2.0
#pragma once

// y = x W^T + bias for few rows of x, with W as files have it: memory is what it costs, and a stored weight is read once for
// all rows. A warp takes a row of W. Many rows of x are for matrix units instead.

#include <cstdint>

#include <kernels/reduce.cuh>
#include <kernels/weights.cuh>

namespace troika::cuda {

struct GemvArguments {
  const std::uint8_t* weights;  // (n, k), rows one after the other
  const float* x;               // (m, k)
  float* y;                     // (m, n)
  std::int64_t m, n, k;
  const float* bias = nullptr;  // (n), or null
};

inline constexpr int gemv_warps = 4, gemv_threads = gemv_warps * 32;

// Rows [first, first + M) of x, or those of them that there are.
template <WeightType type, int M>
__global__ void __launch_bounds__(gemv_threads) gemv_kernel(TROIKA_ARGUMENT GemvArguments a, std::int64_t row_size) {
  const std::int64_t n = std::int64_t{blockIdx.x} * gemv_warps + threadIdx.x / warp_size,
                     first = std::int64_t{blockIdx.y} * M;
  if (n >= a.n) return;  // whole warps
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  float sums[M] = {};
  for (std::int64_t i = lane * 8; i < a.k; i += warp_size * 8) {
    const Eight w = weights_at<type>(a.weights + n * row_size, i, a.k);
    TROIKA_UNROLL
    for (int m = 0; m < M; ++m) {
      if (first + m >= a.m) break;
      const Eight x =
          weights_at<WeightType::f32>(reinterpret_cast<const std::uint8_t*>(a.x + (first + m) * a.k), i, a.k);
      for (int j = 0; j < 8; ++j) sums[m] += w.at[j] * x.at[j];
    }
  }
  TROIKA_UNROLL
  for (int m = 0; m < M; ++m) {
    const float sum = warp_sum(sums[m]);
    if (lane == 0 && first + m < a.m) a.y[(first + m) * a.n + n] = a.bias ? sum + a.bias[n] : sum;
  }
}

// W, x and y begin at multiples of 16 bytes; k is a multiple of the type's block.
inline void gemv(WeightType type, const GemvArguments& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  with_weight_type(type, [&]<WeightType t>(TypeConstant<t>) {
    const auto start = [&]<int M>(std::integral_constant<int, M>) {
      const dim3 blocks(static_cast<unsigned>((a.n + gemv_warps - 1) / gemv_warps),
                        static_cast<unsigned>((a.m + M - 1) / M));
      launch(gemv_kernel<t, M>, blocks, gemv_threads, stream, a, static_cast<std::int64_t>(row_bytes(t, a.k)));
    };
    if (a.m == 1)
      start(std::integral_constant<int, 1>{});
    else
      start(std::integral_constant<int, 4>{});
  });
}

}  // namespace troika::cuda
