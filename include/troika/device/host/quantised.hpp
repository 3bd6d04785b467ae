// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include <troika/core/dequantize.hpp>
#include <troika/core/weight_type.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/gemm.hpp>
#include <troika/device/host/gemv.hpp>
#include <troika/device/host/kernels.hpp>
#include <troika/device/host/operand.hpp>

// Products with quantised rows as files have them. Many rows of activations: blocks become floats, or bf16, where the
// product packs them. Few rows: bytes with bytes (AVX2); else blocks become floats in the first-level cache.
namespace troika::kernels {

// `count` elements of whole blocks, as floats.
template <CpuLevel L>
void expand(WeightType type, const std::byte* blocks, std::int64_t count, float* to) {
  if constexpr (L == CpuLevel::plain) {
    dequantize(type, blocks, std::span(to, static_cast<std::size_t>(count)));
  } else {
#if defined(__x86_64__)
    with_groups(type,
                [&]<class G>(G) { expand_groups<G>(blocks, layout_of(type).bytes, count / (32 * G::groups), to); });
#endif
  }
}

template <class Product, int panel>
void pack(QuantisedRows from, std::int64_t rows, std::int64_t k, float* to) {
  constexpr std::int64_t piece = 256, apart = piece + 16;  // elements at a time; rows do not share sets of the cache
  alignas(64) float floats[panel * apart];
  for (std::int64_t i = 0; i < rows; i += panel) {
    const std::int64_t count = std::min<std::int64_t>(panel, rows - i);
    for (std::int64_t p = 0; p < k; p += piece) {
      const std::int64_t some = std::min(piece, k - p);
      for (std::int64_t j = 0; j < count; ++j) {
        const auto* const blocks = from.at(i + j, p);
        for (std::size_t ahead = row_bytes(from.type, piece), line = 0; line < ahead; line += 64) {
          __builtin_prefetch(blocks + ahead + line);  // of the next piece
        }
        expand<Product::level>(from.type, blocks, some, floats + j * apart);
      }
      pack<Product, panel>(Operand<float>{floats, apart}, count, some, to);
      to += panel * (some / Product::lane);
    }
  }
}

// Floats with what blocks expand to.
template <CpuLevel L>
struct ExpandedDots : FloatDots<L> {
  using Floats = FloatDots<L>;

  static void multiply(std::int64_t m, const float* x, QuantisedRows w, std::int64_t n, std::int64_t k, float* y,
                       std::int64_t y_step, const float* bias) {
    constexpr std::int64_t piece = 1024, apart = piece + 16, together = 4;
    alignas(64) float floats[together * apart];
    float part[Floats::most * together];
    for (std::int64_t j = 0; j < n; j += together) {
      const std::int64_t columns = std::min(together, n - j);
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t c = 0; c < columns; ++c) y[i * y_step + j + c] = bias ? bias[j + c] : 0.0f;
      }
      const float* some_x = x;
      for (std::int64_t p = 0; p < k; p += piece) {
        const std::int64_t some = std::min(piece, k - p);
        for (std::int64_t c = 0; c < columns; ++c) expand<L>(w.type, w.at(j + c, p), some, floats + c * apart);
        Floats::multiply(m, some_x, Operand<float>{floats, apart}, columns, some, part, together, nullptr);
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t c = 0; c < columns; ++c) y[i * y_step + j + c] += part[i * together + c];
        }
        some_x += Floats::size(padded_rows(m), some);
      }
    }
  }
};

#if defined(__x86_64__)
// Bytes with bytes.
template <WeightType type>
struct ByteRows {
  static constexpr int most = 4;
  static constexpr std::int64_t limit = 24;

  static std::int64_t size(std::int64_t padded, std::int64_t k) { return ByteDots<type>::size(padded, k); }
  static void prepare(const float* x, std::int64_t x_step, std::int64_t rows, std::int64_t padded, std::int64_t k,
                      float* to) {
    ByteDots<type>::prepare(x, x_step, rows, padded, k, to);
  }
  template <int M = most>
  static void multiply(std::int64_t m, const float* x, QuantisedRows w, std::int64_t n, std::int64_t k, float* y,
                       std::int64_t y_step, const float* bias) {
    if constexpr (M > 1) {
      if (m <= M / 2) return multiply<M / 2>(m, x, w, n, k, y, y_step, bias);
    }
    constexpr std::int64_t together = 4 / M;
    const std::int64_t apart = rows_apart(n, together);
    for (std::int64_t j = 0; j < std::min(apart, n); ++j) {
      ByteDots<type>::template multiply<M, together>(x, m, w.at(j, 0), w.row_step, apart, (n - j + apart - 1) / apart,
                                                     k, y + j, y_step, bias ? bias + j : bias);
    }
  }
};
#endif

}  // namespace troika::kernels
