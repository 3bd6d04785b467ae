// SPDX-License-Identifier: Apache-2.0
#pragma once

// y = x W^T + bias for few rows of x, in float, with W as files have it: memory is what it costs, and a stored weight is
// read once for all rows. Many rows of x are for matrix units instead. Quantised weights with x in 8 bits: gemv_bytes.cuh.
// Several W are taken in one launch, since small ones alone do not keep all multiprocessors busy (gemv_arguments.cuh).
//
// How much has to be under way: memory answers after 600 to 800 ns, and at 3.35 TB/s (H100; H200: 4.8) that are 2 to 4
// MB, 16 to 29 KB for each of the 132 multiprocessors. A lane has 8 reads of 16 bytes under way, a warp 4 KB; with
// 64 to 100 registers a thread there are 20 to 32 warps, 80 KB and more, so that half of them may be multiplying.

#include <cstdint>

#include <kernels/gemv_arguments.cuh>
#include <kernels/weights.cuh>

namespace troika::cuda {

// Rows [first, first + M) of x, or those of them that there are; a warp takes `together` rows of W, so that what it reads
// of x serves them all: for one row of x the first-level cache is fast enough without, and more warps are better.
template <class W, int M>
__global__ void __launch_bounds__(gemv_threads) gemv_kernel(TROIKA_ARGUMENT GemvArguments a) {
  constexpr int together = M == 1 ? 1 : 2, deep = 8 / together, N = pack_of<W>, step = warp_size * N;
  static_assert(gemv_row_step % together == 0);
  const int first_n =
      (static_cast<int>(blockIdx.x) * gemv_warps + static_cast<int>(threadIdx.x) / warp_size) * together;
  const std::int64_t first = std::int64_t{blockIdx.y} * M;
  if (first_n >= a.n) return;  // whole warps
  const W* rows[together];
  const GemvProduct& p = product_of(a, first_n);
  for (int r = 0; r < together; ++r)  // the last one once more where W has no other
    rows[r] = reinterpret_cast<const W*>(p.weights) + row_of(p, first_n + r) * a.k;
  float sums[together][M] = {};
  for (std::int64_t i = std::int64_t{threadIdx.x} % warp_size * N; i < a.k; i += deep * step) {
    Pack<W, N> w[together][deep];
    TROIKA_UNROLL
    for (int u = 0; u < deep; ++u) {
      for (int r = 0; r < together; ++r)
        w[r][u] = i + u * step < a.k ? load_once<Pack<W, N>>(rows[r] + i + u * step) : Pack<W, N>{};
    }
    TROIKA_UNROLL
    for (int u = 0; u < deep; ++u) {
      if (i + u * step >= a.k) break;
      Pack<float, N> floats[together];
      for (int r = 0; r < together; ++r) floats[r] = to_floats(w[r][u]);
      TROIKA_UNROLL
      for (int m = 0; m < M; ++m) {
        if (M > 1 && first + m >= a.m) break;
        const float* const of_x = a.x + (first + m) * a.k + i + u * step;
        TROIKA_UNROLL
        for (int j = 0; j < N; j += 4) {
          const auto x = load_pack<Pack<float, 4>>(of_x + j);
          for (int r = 0; r < together; ++r)
            for (int l = 0; l < 4; ++l) sums[r][m] += floats[r].at[j + l] * x.at[l];
        }
      }
    }
  }
  TROIKA_UNROLL
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < together; ++r) put_sum(a, p, first + m, first_n + r, sums[r][m]);
}

// The same for every type, and for rows that begin anywhere: eight elements at a time.
template <WeightType type, int M>
__global__ void __launch_bounds__(gemv_threads)
    gemv_of_any_kernel(TROIKA_ARGUMENT GemvArguments a, std::int64_t row_size) {
  const int n = static_cast<int>(blockIdx.x) * gemv_warps + static_cast<int>(threadIdx.x) / warp_size;
  const std::int64_t first = std::int64_t{blockIdx.y} * M;
  if (n >= a.n) return;  // whole warps
  const GemvProduct& p = product_of(a, n);
  const std::uint8_t* const weights = p.weights + row_of(p, n) * row_size;
  float sums[M] = {};
  for (std::int64_t i = std::int64_t{threadIdx.x} % warp_size * 8; i < a.k; i += warp_size * 8) {
    const Eight w = weights_at<type>(weights, i, a.k);
    TROIKA_UNROLL
    for (int m = 0; m < M; ++m) {
      if (first + m >= a.m) break;
      const Eight x =
          weights_at<WeightType::f32>(reinterpret_cast<const std::uint8_t*>(a.x + (first + m) * a.k), i, a.k);
      for (int j = 0; j < 8; ++j) sums[m] += w.at[j] * x.at[j];
    }
  }
  TROIKA_UNROLL
  for (int m = 0; m < M; ++m) put_sum(a, p, first + m, n, sums[m]);
}

// W, x and y begin at multiples of 16 bytes; k is a multiple of the type's block.
inline void gemv(WeightType type, const GemvArguments& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  const auto blocks = [&](std::int64_t rows_of_w, std::int64_t rows_of_x) {
    return dim3(static_cast<unsigned>((a.n + rows_of_w - 1) / rows_of_w),
                static_cast<unsigned>((a.m + rows_of_x - 1) / rows_of_x));
  };
  with_weight_type(type, [&]<WeightType t>(TypeConstant<t>) {
    if constexpr (layout_of(t).block == 1) {
      using W = StoredAs<t>;
      if (a.k % pack_of<W> == 0) {
        if (a.m == 1)
          launch(gemv_kernel<W, 1>, blocks(gemv_warps, 1), gemv_threads, stream, a);
        else
          launch(gemv_kernel<W, 4>, blocks(2 * gemv_warps, 4), gemv_threads, stream, a);
        return;
      }
    }
    launch(gemv_of_any_kernel<t, 4>, blocks(gemv_warps, 4), gemv_threads, stream, a,
           static_cast<std::int64_t>(row_bytes(t, a.k)));
  });
}

}  // namespace troika::cuda
