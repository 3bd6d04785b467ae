// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the kernels of gemv.cuh and gemv_bytes.cuh have in common.

#include <cstdint>

#include <kernels/reduce.cuh>

namespace troika::cuda {

struct GemvArguments {
  const std::uint8_t* weights;  // (n, k), rows one after the other
  const float* x;               // (m, k)
  float* y;                     // (m, n)
  std::int64_t m, n, k;
  const float* bias = nullptr;  // (n), or null
};

inline constexpr int gemv_warps = 4, gemv_threads = gemv_warps * warp_size;

__device__ inline void put_sum(const GemvArguments& a, std::int64_t row, std::int64_t n, float of_lane) {
  const float sum = warp_sum(of_lane);
  if (threadIdx.x % warp_size == 0 && row < a.m && n < a.n) a.y[row * a.n + n] = a.bias ? sum + a.bias[n] : sum;
}

}  // namespace troika::cuda
