// SPDX-License-Identifier: Apache-2.0
// More values at once than the 32 registers hold that these bounds leave to a thread.
__global__ void __launch_bounds__(1024, 2) spills(float* x) {
  float values[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) values[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = values[63 - i] * values[i];
}
