// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the kernels of gemv.cuh and gemv_bytes.cuh have in common.

#include <cstdint>
#include <span>

#include <kernels/reduce.cuh>

namespace troika::cuda {

struct GemvProduct {
  const std::uint8_t* weights;  // (n, k), rows one after the other
  float* y;                     // (m, n)
  int n;
  const float* bias = nullptr;  // (n), or null
  int first = 0;                // its rows among those of all products
};

inline constexpr int gemv_products = 3;  // q, k and v
inline constexpr int gemv_row_step = 2;

// Products of one x. A warp's rows of W, up to gemv_row_step, are those of one matrix: each begins at a multiple of it.
struct GemvArguments {
  const float* x;  // (m, k)
  std::int64_t m, k;
  int n;
  GemvProduct products[gemv_products];

  // One to gemv_products, none without rows.
  GemvArguments(const float* rows, std::int64_t m_, std::int64_t k_, std::span<const GemvProduct> some)
      : x(rows), m(m_), k(k_), n(0), products{} {
    for (std::size_t i = 0; i < some.size(); ++i) {
      products[i] = some[i];
      products[i].first = (n + gemv_row_step - 1) / gemv_row_step * gemv_row_step;
      n = products[i].first + some[i].n;
    }
    for (std::size_t i = some.size(); i < gemv_products; ++i) products[i].first = n;  // no row comes so far
  }
};

// Whose row that is among the rows of all; where nobody's is, the one's before it.
__device__ inline const GemvProduct& product_of(const GemvArguments& a, int n) {
  int i = 0;
  for (int next = 1; next < gemv_products; ++next) i += n >= a.products[next].first;
  return a.products[i];
}

// The same row among those of W, or the last of them.
__device__ inline std::int64_t row_of(const GemvProduct& p, int n) { return n - p.first < p.n ? n - p.first : p.n - 1; }

inline constexpr int gemv_warps = 4, gemv_threads = gemv_warps * warp_size;

// n: among the rows of all.
__device__ inline void put_sum(const GemvArguments& a, const GemvProduct& p, std::int64_t row, int n, float of_lane) {
  const float sum = warp_sum(of_lane);
  n -= p.first;
  if (threadIdx.x % warp_size == 0 && row < a.m && n < p.n) p.y[row * p.n + n] = p.bias ? sum + p.bias[n] : sum;
}

}  // namespace troika::cuda
