// SPDX-License-Identifier: Apache-2.0
#pragma once

// Rotary embedding, in place: the pairs (i, i + d/2) of the first d features of each head turn by the angle of the
// token's position. The angles come from a table, since models were trained with angles rounded as RotaryTable rounds
// them. A block takes a token, whose angles all of its heads share.

#include <cstdint>

#include <kernels/language.cuh>

namespace troika::cuda {

struct RotaryArguments {
  float* x;                       // (tokens, heads, width)
  const std::int32_t* positions;  // (tokens)
  const float *cos, *sin;         // (positions, half)
  std::int64_t tokens;
  int heads, width, half;
};

inline constexpr int rotary_threads = 128;

static __global__ void __launch_bounds__(rotary_threads) rotary_kernel(TROIKA_ARGUMENT RotaryArguments a) {
  const std::int64_t token = blockIdx.x, angles = std::int64_t{a.positions[token]} * a.half;
  float* const heads = a.x + token * a.heads * a.width;
  for (int pair = static_cast<int>(threadIdx.x); pair < a.heads * a.half; pair += rotary_threads) {
    const int head = pair / a.half, i = pair % a.half;
    float* const low = heads + std::int64_t{head} * a.width + i;
    const float x = low[0], y = low[a.half], c = a.cos[angles + i], s = a.sin[angles + i];
    low[0] = x * c - y * s;
    low[a.half] = y * c + x * s;
  }
}

inline void rotary(const RotaryArguments& a, cudaStream_t stream) {
  if (a.tokens == 0 || a.heads == 0) return;
  launch(rotary_kernel, dim3(static_cast<unsigned>(a.tokens)), rotary_threads, stream, a);
}

}  // namespace troika::cuda
