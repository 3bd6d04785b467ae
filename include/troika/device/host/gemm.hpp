// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <troika/core/dtype.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/kernels.hpp>
#include <troika/device/host/operand.hpp>

namespace troika {

namespace kernels {

// Blocks of a product, after Goto and van de Geijn: a block of b stays in the second-level cache while all panels of a
// pass by, one at a time in the first-level cache; what is packed of a comes from the third level. What is packed is
// counted in lanes of 4 bytes, k too.
template <class Tile>
struct Blocking {
  static constexpr std::int64_t panel = Tile::rows, strip = Tile::columns;
  static constexpr std::int64_t k = 512;  // an a panel is 24 KiB with AVX-512
  static constexpr std::int64_t n = 128;  // a block of b is 256 KiB
  static constexpr std::int64_t m = 960 / panel * panel;

  static std::int64_t padded(std::int64_t rows) { return (std::min(rows, m) + panel - 1) / panel * panel; }
  // Lanes that one thread needs.
  static std::size_t scratch(std::int64_t rows) {
    return static_cast<std::size_t>((padded(rows) + n) * k) + 2 * static_cast<std::size_t>(Tile::width);
  }
};

// How a product is computed: what a lane holds, how rows are packed in panels of `panel` rows, to[panel][lane][row],
// and the tile that multiplies a panel with a strip.

// A lane is a float; all types are widened.
template <CpuLevel L>
struct FloatProduct {
  using Tile = Tiles<L>;
  static constexpr CpuLevel level = L;
  static constexpr std::int64_t lane = 1;  // elements

  template <int panel, class T>
  static void pack(Operand<T> from, std::int64_t rows, std::int64_t k, float* to) {
    // Rows that lie a power of two apart fall into the same 8 places of the first-level cache: 16 at once would push
    // each other out.
    constexpr CpuLevel turner = L == CpuLevel::avx512 && panel % 8 == 0 ? CpuLevel::avx2 : L;
    constexpr std::int64_t width = Vector<turner>::width;
    for (std::int64_t i = 0; i < rows; i += panel, to += panel * k) {
      const std::int64_t count = std::min<std::int64_t>(panel, rows - i);
      if (from.step == 1) {
        for (std::int64_t j = 0; j < panel; j += width) {
          const std::int64_t some = std::clamp<std::int64_t>(count - j, 0, width);
          Tiles<turner>::turn(from.at(i + j, 0), from.row_step, some, k, to + j, panel);
        }
      } else {
        for (std::int64_t p = 0; p < k; ++p) {
          for (std::int64_t j = 0; j < panel; ++j) {
            to[p * panel + j] = j < count ? static_cast<float>(*from.at(i + j, p)) : 0.0f;
          }
        }
      }
    }
  }
  static void multiply(std::int64_t count, const float* a, const float* b, std::int64_t lanes, float* c,
                       std::int64_t c_step, std::int64_t used, bool accumulate, const float* start) {
    Tile::template multiply<1, Tile::rows>(count, a, b, Tile::columns, lanes, c, c_step, used, accumulate, start);
  }
};

#if defined(__x86_64__)
// A lane is a pair of bf16; floats are rounded. Only rows with a step of 1.
struct PairProduct {
  using Tile = Pairs;
  static constexpr CpuLevel level = CpuLevel::avx512;
  static constexpr std::int64_t lane = 2;

  template <int panel, class T>
  static void pack(Operand<T> from, std::int64_t rows, std::int64_t k, float* to) {
    const std::int64_t lanes = Pairs::lanes(k);
    for (std::int64_t i = 0; i < rows; i += panel, to += panel * lanes) {
      const std::int64_t count = std::min<std::int64_t>(panel, rows - i);
      if constexpr (panel % 8 == 0) {
        for (std::int64_t j = 0; j < panel; j += 8) {
          Pairs::turn_half(from.at(i + j, 0), from.row_step, std::clamp<std::int64_t>(count - j, 0, 8), k, to + j,
                           panel);
        }
      } else {
        Pairs::turn(from.at(i, 0), from.row_step, count, k, to, panel);
      }
    }
  }
  static void multiply(std::int64_t count, const float* a, const float* b, std::int64_t lanes, float* c,
                       std::int64_t c_step, std::int64_t used, bool accumulate, const float* start) {
    Pairs::multiply(count, a, b, lanes, c, c_step, used, accumulate, start);
  }
};
#endif

template <class Product, int panel, class T>
void pack(Operand<T> from, std::int64_t rows, std::int64_t k, float* to) {
  Product::template pack<panel>(from, rows, k, to);
}
template <class Product, int panel>
void pack(QuantisedRows from, std::int64_t rows, std::int64_t k, float* to);  // quantised.hpp

// c (m, n) = a bT + bias, or c + a bT, in one thread, with b given by its rows. k is at least 1.
template <class Product, class A, class B>
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, A a, B b, float* c, std::int64_t c_step,
              const float* bias, bool accumulate, float* scratch) {
  using Block = Blocking<typename Product::Tile>;
  constexpr std::int64_t lane = Product::lane;
  float* const packed_b = scratch;
  float* const packed_a = scratch + Block::n * Block::k;
  for (std::int64_t i0 = 0; i0 < m; i0 += Block::m) {
    const std::int64_t rows = std::min(Block::m, m - i0);
    for (std::int64_t p0 = 0; p0 < k; p0 += lane * Block::k) {
      const std::int64_t depth = std::min(lane * Block::k, k - p0), lanes = (depth + lane - 1) / lane;
      const bool add = accumulate || p0 > 0;
      pack<Product, Block::panel>(a.part(i0, p0), rows, depth, packed_a);
      for (std::int64_t j0 = 0; j0 < n; j0 += Block::n) {
        const std::int64_t columns = std::min(Block::n, n - j0);
        pack<Product, Block::strip>(b.part(j0, p0), columns, depth, packed_b);
        for (std::int64_t i = 0; i < rows; i += Block::panel) {
          const std::int64_t count = std::min(Block::panel, rows - i);
          for (std::int64_t j = 0; j < columns; j += Block::strip) {
            Product::multiply(count, packed_a + i * lanes, packed_b + j * lanes, lanes, c + (i0 + i) * c_step + j0 + j,
                              c_step, std::min(Block::strip, columns - j), add, bias ? bias + j0 + j : nullptr);
          }
        }
      }
    }
  }
}

// The same in all threads of the device.
template <class Product, class A, class B>
void multiply_in_team(HostStream& stream, std::int64_t m, std::int64_t n, std::int64_t k, A a, B b, float* c,
                      std::int64_t c_step, const float* bias, bool accumulate) {
  using Block = Blocking<typename Product::Tile>;
  HostDevice& device = stream.device();
  const int threads = m * n * k < 64 * 64 * 64 ? 1 : device.team().size();
  const auto each = (Block::scratch(m) + 15) / 16 * 16;
  auto buffer = device.allocate(each * static_cast<std::size_t>(threads) * sizeof(float));
  auto* const scratch = reinterpret_cast<float*>(buffer.data());
  if (threads == 1) return multiply<Product>(m, n, k, a, b, c, c_step, bias, accumulate, scratch);
  // Each thread has its own rows of b, or of a where b has too few for all.
  const bool by_columns = n >= m || n >= 4 * threads * Block::strip;
  const std::int64_t unit = by_columns ? Block::strip : Block::panel;
  const std::int64_t units = ((by_columns ? n : m) + unit - 1) / unit;
  device.team().run([&](int member, int size) {
    const std::int64_t begin = units * member / size * unit;
    const std::int64_t end = std::min(by_columns ? n : m, units * (member + 1) / size * unit);
    if (begin >= end) return;
    float* const mine = scratch + each * static_cast<std::size_t>(member);
    if (by_columns) {
      multiply<Product>(m, end - begin, k, a, b.part(begin, 0), c + begin, c_step, bias ? bias + begin : nullptr,
                        accumulate, mine);
    } else {
      multiply<Product>(end - begin, n, k, a.part(begin, 0), b, c + begin * c_step, c_step, bias, accumulate, mine);
    }
  });
}

}  // namespace kernels

// c (m, n) = a bT + bias, or c += a bT where `accumulate` (and then no bias), with a (m, k), b (n, k) and c with c_step
// floats from row to row. Sums in float. c overlaps neither a nor b. NaN and infinities go where the formula puts them.
template <class A, class B>
void gemm(HostStream& stream, std::int64_t m, std::int64_t n, std::int64_t k, Operand<A> a, Operand<B> b, float* c,
          std::int64_t c_step, const float* bias = nullptr, bool accumulate = false, CpuLevel level = cpu_level()) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (accumulate) return;
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) c[i * c_step + j] = bias ? bias[j] : 0.0f;
    }
    return;
  }
  kernels::at_level<kernels::FloatProduct>(level, [&]<CpuLevel L>(kernels::FloatProduct<L>) {
    kernels::multiply_in_team<kernels::FloatProduct<L>>(stream, m, n, k, a, b, c, c_step, bias, accumulate);
  });
}

}  // namespace troika
