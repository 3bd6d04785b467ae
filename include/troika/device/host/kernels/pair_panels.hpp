// SPDX-License-Identifier: Apache-2.0
// No "#pragma once": kernels.hpp includes this where its macros are set.
#if !defined(TROIKA_LEVEL)
#include <troika/device/host/kernels.hpp>
#else

// Panels of bf16 (device/host/panel_fields.hpp): a word is a pair of neighbours along k, so that one instruction adds
// two products to a sum of each of 16 rows. Each sum takes its products in the order of k, whatever is computed beside
// it.
namespace troika::kernels {

struct PairPanels {
  typedef float F __attribute__((vector_size(64)));

  // Rows of x rounded to bf16, pair by pair: pair p of row i goes to to[p * rows + i]. k is even.
  TROIKA_TARGET static void prepare(const float* x, std::int64_t x_step, std::int64_t rows, std::int64_t k, float* to) {
    alignas(64) float pairs[16];
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t p = 0; p < k; p += 32) {
        const std::int64_t left = k - p < 32 ? k - p : 32;
        _mm512_store_ps(pairs, Pairs::pairs(x + i * x_step + p, left));
        for (std::int64_t q = 0; q < left / 2; ++q) to[(p / 2 + q) * rows + i] = pairs[q];
      }
    }
  }

  // M rows of x times P panels that lie `apart` bytes from each other; `rows` of a panel, 16 where there are two.
  template <int M, int P>
  TROIKA_TARGET static void multiply(const float* x, const std::byte* w, std::int64_t apart, std::int64_t rows,
                                     std::int64_t pairs, const PanelPlace& y) {
    const auto mask = static_cast<__mmask16>((1u << rows) - 1u);
    const std::int64_t step = P == 2 ? 64 : 4 * rows;
    F sum[M][P];
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) {
      TROIKA_UNROLL
      for (int j = 0; j < P; ++j) {
        sum[i][j] = y.accumulate ? _mm512_maskz_loadu_ps(mask, y.data + i * y.step + 16 * j)
                    : y.bias     ? _mm512_maskz_loadu_ps(mask, y.bias + 16 * j)
                                 : _mm512_setzero_ps();
      }
    }
    for (std::int64_t p = 0; p < pairs; ++p, x += M, w += step) {
      F panel[P];
      TROIKA_UNROLL
      for (int j = 0; j < P; ++j) {
        panel[j] = P == 2 ? _mm512_loadu_ps(w + j * apart) : _mm512_maskz_loadu_ps(mask, w);
      }
      TROIKA_UNROLL
      for (int i = 0; i < M; ++i) {
        const F xi = _mm512_set1_ps(x[i]);
        TROIKA_UNROLL
        for (int j = 0; j < P; ++j) sum[i][j] = Pairs::dot(sum[i][j], panel[j], xi);
      }
    }
    TROIKA_UNROLL
    for (int i = 0; i < M; ++i) {
      TROIKA_UNROLL
      for (int j = 0; j < P; ++j) _mm512_mask_storeu_ps(y.data + i * y.step + 16 * j, mask, sum[i][j]);
    }
  }
};

}  // namespace troika::kernels
#endif
