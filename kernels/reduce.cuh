// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kernels/language.cuh>

namespace troika::cuda {

// All lanes of a warp get the same result, since every step adds the same two values on both sides.
__device__ inline float warp_sum(float value) {
  for (int step = warp_size / 2; step > 0; step /= 2) value += __shfl_xor_sync(all_lanes, value, step);
  return value;
}
__device__ inline float warp_max(float value) {
  for (int step = warp_size / 2; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(all_lanes, value, step));
  return value;
}

// Of all threads of a block, which are a multiple of a warp. `partial`, one float a warp, is not read any more by the
// caller and not written again before the next barrier: two sums in a row take two of them.
template <int threads>
struct BlockScratch {
  float partial[threads / warp_size];
};

template <int threads, class Warp, class Combine>
__device__ float block_reduce(float value, BlockScratch<threads>& scratch, Warp of_warp, Combine combine) {
  value = of_warp(value);
  if (threadIdx.x % warp_size == 0) scratch.partial[threadIdx.x / warp_size] = value;
  __syncthreads();
  float result = scratch.partial[0];
  for (int i = 1; i < threads / warp_size; ++i) result = combine(result, scratch.partial[i]);
  return result;
}
template <int threads>
__device__ float block_sum(float value, BlockScratch<threads>& scratch) {
  return block_reduce(value, scratch, warp_sum, [](float a, float b) { return a + b; });
}
template <int threads>
__device__ float block_max(float value, BlockScratch<threads>& scratch) {
  return block_reduce(value, scratch, warp_max, [](float a, float b) { return fmaxf(a, b); });
}

}  // namespace troika::cuda
