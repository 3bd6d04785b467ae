// SPDX-License-Identifier: Apache-2.0
#pragma once

// RMSNorm and LayerNorm, with the residual added on the way: the sum has to be read anyway, so adding it here saves one
// pass over memory. A block takes a row. A row is read from memory once and a second time from the caches. With a sum
// over peers in the place of x: peer_norm.cuh.

#include <cstdint>

#include <kernels/element.cuh>
#include <kernels/reduce.cuh>

namespace troika::cuda {

// y = norm(x) weight + bias, or, with a residual: residual += x, y = norm(residual) weight + bias. y may be x.
struct NormArguments {
  const float* x;       // (rows, d)
  float* residual;      // (rows, d), or null
  const float* weight;  // (d)
  const float* bias;    // (d), or null
  float* y;             // (rows, d)
  std::int64_t rows, d;
  float eps;
};

inline constexpr int norm_threads = 256;
struct NormScratch {
  BlockScratch<norm_threads> sum, squares;
};

// The row that begins at element `row`, by all threads of a block; x_at(i): the N elements of x from i of the row on.
// Centred is LayerNorm: the mean first, then the squares about it, since their difference would cancel.
template <bool centred, int N, class X>
__device__ void norm_row(const NormArguments& a, std::int64_t row, NormScratch& scratch, X x_at) {
  using Values = Pack<float, N>;
  const std::int64_t first = std::int64_t{threadIdx.x} * N, step = std::int64_t{norm_threads} * N;
  // Each thread reads again only what it wrote itself, so that needs no barrier.
  const float* const sums = a.residual ? a.residual + row : a.x + row;

  float sum = 0, squares = 0;
  for (std::int64_t i = first; i < a.d; i += step) {
    Values value = x_at(i);
    if (a.residual) {
      const auto other = load_pack<Values>(a.residual + row + i);
      for (int j = 0; j < N; ++j) value.at[j] += other.at[j];
      store_pack(value, a.residual + row + i);
    }
    for (int j = 0; j < N; ++j) {
      sum += value.at[j];
      squares += value.at[j] * value.at[j];
    }
  }
  float mean = 0;
  if constexpr (centred) {
    mean = block_sum(sum, scratch.sum) / static_cast<float>(a.d);
    squares = 0;
    for (std::int64_t i = first; i < a.d; i += step) {
      const auto value = load_pack<Values>(sums + i);
      for (int j = 0; j < N; ++j) squares += (value.at[j] - mean) * (value.at[j] - mean);
    }
  }
  const float variance = block_sum(squares, scratch.squares) / static_cast<float>(a.d);
  const float scale = 1 / sqrtf(variance + a.eps);
  for (std::int64_t i = first; i < a.d; i += step) {
    auto value = load_pack<Values>(sums + i);
    const auto weight = load_pack<Values>(a.weight + i);
    for (int j = 0; j < N; ++j) value.at[j] = (value.at[j] - mean) * scale * weight.at[j];
    if (a.bias) {
      const auto bias = load_pack<Values>(a.bias + i);
      for (int j = 0; j < N; ++j) value.at[j] += bias.at[j];
    }
    store_pack(value, a.y + row + i);
  }
}

template <bool centred, int N>
__global__ void __launch_bounds__(norm_threads) norm_kernel(TROIKA_ARGUMENT NormArguments a) {
  TROIKA_SHARED(NormScratch, scratch);
  const std::int64_t row = std::int64_t{blockIdx.x} * a.d;
  norm_row<centred, N>(a, row, scratch, [&](std::int64_t i) { return load_pack<Pack<float, N>>(a.x + row + i); });
}

template <bool centred>
void norm(const NormArguments& a, cudaStream_t stream) {
  if (a.rows == 0 || a.d == 0) return;
  const bool wide =
      a.d % 4 == 0 && aligned(a.x) && aligned(a.residual) && aligned(a.weight) && aligned(a.bias) && aligned(a.y);
  launch(wide ? norm_kernel<centred, 4> : norm_kernel<centred, 1>, dim3(static_cast<unsigned>(a.rows)), norm_threads,
         stream, a);
}
inline void rms_norm(const NormArguments& a, cudaStream_t stream) { norm<false>(a, stream); }
inline void layer_norm(const NormArguments& a, cudaStream_t stream) { norm<true>(a, stream); }

}  // namespace troika::cuda
