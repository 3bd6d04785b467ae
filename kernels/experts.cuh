// SPDX-License-Identifier: Apache-2.0
#pragma once

// A mixture of experts: which of them a token asks for, and the rows that go to one and come back.

#include <cmath>
#include <cstdint>

#include <kernels/language.cuh>

namespace troika::cuda {

inline constexpr int expert_threads = 128;

// For each row of scores (tokens, experts) the columns of the largest, the largest first and of equal ones the first,
// and their share of the softmax over all, or with `normalized` over the chosen ones. A thread takes a token: experts
// are few.
static __global__ void __launch_bounds__(expert_threads)
    choose_experts_kernel(const float* scores, std::int64_t tokens, int experts, int used, bool normalized,
                          std::int32_t* chosen, float* weights) {
  const std::int64_t token = std::int64_t{blockIdx.x} * expert_threads + threadIdx.x;
  if (token >= tokens) return;
  const float* const row = scores + token * experts;
  std::int32_t* const ids = chosen + token * used;
  float* const share = weights + token * used;
  for (int k = 0; k < used; ++k) {
    int best = -1;
    for (int e = 0; e < experts; ++e) {
      if (best >= 0 && !(row[e] > row[best])) continue;
      bool taken = false;
      for (int j = 0; j < k; ++j) taken = taken || ids[j] == e;
      if (!taken) best = e;
    }
    ids[k] = best;
  }
  const float most = row[ids[0]];
  float total = 0;
  for (int k = 0; k < used; ++k) {
    share[k] = expf(row[ids[k]] - most);
    if (normalized) total += share[k];
  }
  if (!normalized)
    for (int e = 0; e < experts; ++e) total += expf(row[e] - most);
  for (int k = 0; k < used; ++k) share[k] /= total;
}
inline void choose_experts(const float* scores, std::int64_t tokens, int experts, int used, bool normalized,
                           std::int32_t* chosen, float* weights, cudaStream_t stream) {
  if (tokens == 0 || used == 0) return;
  const dim3 blocks(static_cast<unsigned>((tokens + expert_threads - 1) / expert_threads));
  launch(choose_experts_kernel, blocks, expert_threads, stream, scores, tokens, experts, used, normalized, chosen,
         weights);
}

// Row i of y is row rows[i] of x; or, with weights, row rows[i] of y is added weights[i] times row i of x, and no row is
// named twice. A block takes a row.
static __global__ void __launch_bounds__(expert_threads)
    gather_rows_kernel(const float* x, const std::int32_t* rows, float* y, std::int64_t d) {
  const float* const from = x + std::int64_t{rows[blockIdx.x]} * d;
  for (std::int64_t i = threadIdx.x; i < d; i += expert_threads) y[std::int64_t{blockIdx.x} * d + i] = from[i];
}
static __global__ void __launch_bounds__(expert_threads)
    add_rows_kernel(const float* x, const std::int32_t* rows, const float* weights, float* y, std::int64_t d) {
  float* const to = y + std::int64_t{rows[blockIdx.x]} * d;
  const float weight = weights[blockIdx.x];
  for (std::int64_t i = threadIdx.x; i < d; i += expert_threads) to[i] += weight * x[std::int64_t{blockIdx.x} * d + i];
}
inline void gather_rows(const float* x, const std::int32_t* rows, std::int64_t count, float* y, std::int64_t d,
                        cudaStream_t stream) {
  if (count > 0) launch(gather_rows_kernel, dim3(static_cast<unsigned>(count)), expert_threads, stream, x, rows, y, d);
}
inline void add_rows(const float* x, const std::int32_t* rows, const float* weights, std::int64_t count, float* y,
                     std::int64_t d, cudaStream_t stream) {
  if (count > 0)
    launch(add_rows_kernel, dim3(static_cast<unsigned>(count)), expert_threads, stream, x, rows, weights, y, d);
}

}  // namespace troika::cuda
