// SPDX-License-Identifier: Apache-2.0
#pragma once

// Rows of weights as they are stored become rows that a matrix unit takes, for products of many rows of activations. A
// block takes a row.

#include <cstdint>

#include <kernels/weights.cuh>

namespace troika::cuda {

inline constexpr int widen_threads = 128;

template <WeightType type, class Out>
__global__ void __launch_bounds__(widen_threads)
    widen_kernel(const std::uint8_t* weights, Out* y, std::int64_t d, std::int64_t row_size) {
  const std::int64_t row = blockIdx.x;
  Out* const to = y + row * d;
  for (std::int64_t i = std::int64_t{threadIdx.x} * 8; i < d; i += widen_threads * 8) {
    const Eight values = weights_at<type>(weights + row * row_size, i, d);
    if (d % 8 == 0) {
      constexpr int N = pack_of<Out>;
      for (int j = 0; j < 8; j += N) {
        Pack<Out, N> pack;
        for (int n = 0; n < N; ++n) pack.at[n] = from_float<Out>(values.at[j + n]);
        store_pack(pack, to + i + j);
      }
    } else {
      for (int j = 0; j < 8 && i + j < d; ++j) to[i + j] = from_float<Out>(values.at[j]);
    }
  }
}

// y (rows, d); both begin at multiples of 16 bytes.
template <class Out>
void widen(WeightType type, const std::uint8_t* weights, Out* y, std::int64_t rows, std::int64_t d,
           cudaStream_t stream) {
  if (rows == 0 || d == 0) return;
  with_weight_type(type, [&]<WeightType t>(TypeConstant<t>) {
    launch(widen_kernel<t, Out>, dim3(static_cast<unsigned>(rows)), widen_threads, stream, weights, y, d,
           static_cast<std::int64_t>(row_bytes(t, d)));
  });
}

}  // namespace troika::cuda
