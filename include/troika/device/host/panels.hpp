// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/core/shape.hpp>
#include <troika/core/weight_type.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/kernels.hpp>
#include <troika/device/host/panel_fields.hpp>
#include <troika/device/weight.hpp>

namespace troika {

namespace kernels {

// One row of a panel, as files have it.
inline void copy_panel_row(WeightType type, const std::byte* panel, std::int64_t rows, std::int64_t row,
                           std::int64_t blocks, std::byte* to) {
  const auto fields = panel_fields(type);
  const std::int64_t bytes = panel_block_bytes(type);
  for (std::int64_t b = 0; b < blocks; ++b, panel += rows * bytes, to += bytes) {
    std::memcpy(to + fields.small_at, panel + row * fields.small_bytes, static_cast<std::size_t>(fields.small_bytes));
    for (std::int64_t w = 0; w < fields.words(); ++w) {
      std::memcpy(to + fields.word_at(w), panel + rows * (fields.small_bytes + 4 * w) + 4 * row, 4);
    }
  }
}

}  // namespace kernels

// Whether products on this device are faster with a weight of this type in panels.
inline bool wants_panels(HostDevice& device, WeightType type) {
  const bool has = is_quantised(type) ? panel_level() != CpuLevel::plain : type == WeightType::bf16 && cpu_has_bf16();
  return has && device.options().precision == Precision::fast;
}

// Puts a weight that products will read into panels, where the device wants that; in place, but for a copy of 16 rows.
inline void prepare_for_products(HostDevice& device, Weight<HostDevice>& weight) {
  if (weight.order() != WeightOrder::rows || weight.shape().dims() != 2 || weight.shape().count() == 0) return;
  if (!wants_panels(device, weight.type())) return;
  const auto type = weight.type();
  if (weight.shape()[1] % kernels::panel_block(type) != 0) return;  // an odd row of bf16
  const auto fields = kernels::panel_fields(type);
  const auto row = static_cast<std::int64_t>(row_bytes(type, weight.shape()[1]));
  const std::int64_t bytes = kernels::panel_block_bytes(type), blocks = row / bytes;
  std::vector<std::byte> copy(static_cast<std::size_t>(panel_rows * row));
  for (std::int64_t first = 0; first < weight.shape()[0]; first += panel_rows) {
    const std::int64_t rows = std::min(panel_rows, weight.shape()[0] - first);
    std::byte* to = weight.data() + first * row;
    std::memcpy(copy.data(), to, static_cast<std::size_t>(rows * row));
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::byte* const block = copy.data() + b * bytes;
      for (std::int64_t r = 0; r < rows; ++r, to += fields.small_bytes) {
        std::memcpy(to, block + r * row + fields.small_at, static_cast<std::size_t>(fields.small_bytes));
      }
      for (std::int64_t w = 0; w < fields.words(); ++w) {
        for (std::int64_t r = 0; r < rows; ++r, to += 4) std::memcpy(to, block + r * row + fields.word_at(w), 4);
      }
    }
  }
  weight.set_order(WeightOrder::panels);
}

namespace kernels {

// What an x is multiplied with: y = x wT + bias.
struct PanelTerm {
  const std::byte* w;
  View<float> y;
  const float* bias;  // or null
};

#if defined(__x86_64__)
// y (m, n) = x wT + bias, with x prepared chunk by chunk along k, and of these group of rows by group of rows.
struct PanelProblem {
  static constexpr std::int64_t most_rows = 512;  // more are several problems

  const float* x;
  const std::byte* w;
  float* y;
  const float* bias;  // or null
  std::int64_t m, n, k;

  const std::byte* panel(WeightType type, std::int64_t panel, std::int64_t p) const {
    const std::int64_t first = panel * panel_rows, rows = std::min(panel_rows, n - first);
    return w + first * static_cast<std::int64_t>(row_bytes(type, k)) +
           rows * static_cast<std::int64_t>(row_bytes(type, p));
  }
  PanelPlace place(std::int64_t i, std::int64_t panel, std::int64_t p) const {
    const std::int64_t first = panel * panel_rows, rows = std::min(panel_rows, n - first);
    return {y + i * n + first, n, static_cast<std::uint16_t>((1u << rows) - 1u), p > 0, bias ? bias + first : nullptr};
  }

  // Where the sums of a panel come from and go to, chunk after chunk. They lie together until the last of the chunks
  // that follow each other: rows of y, a power of two apart, would push each other out of the caches.
  struct Sums {
    const PanelProblem& problem;
    std::int64_t panel, begin;  // the first of these chunks
    bool first, last;
    float* kept;  // (most_rows, panel_rows)

    PanelPlace from(std::int64_t i) const { return first ? problem.place(i, panel, begin) : between(i); }
    PanelPlace to(std::int64_t i) const { return last ? problem.place(i, panel, begin) : between(i); }

   private:
    PanelPlace between(std::int64_t i) const {
      return {kept + i * panel_rows, panel_rows, problem.place(i, panel, begin).columns, true, nullptr};
    }
  };
  // f(panel, p, Sums) for panels [first, last) and all chunks, panel by panel as far along k as `elements` of x go.
  template <class F>
  void for_all_chunks(std::int64_t first, std::int64_t last, std::int64_t chunk, std::int64_t elements, F&& f) const {
    alignas(64) float kept[most_rows * panel_rows];
    const std::int64_t deep = std::max(chunk, elements / m / chunk * chunk);
    for (std::int64_t outer = 0; outer < k; outer += deep) {
      const std::int64_t end = std::min(k, outer + deep);
      for (std::int64_t panel = first; panel < last; ++panel) {
        for (std::int64_t p = outer; p < end; p += chunk) {
          f(panel, p, Sums{*this, panel, outer, p == outer, p + chunk >= end, kept});
        }
      }
    }
  }

  // f(panel, p) for panels [first, last), `together` of them at a time, and all chunks, in an order that keeps what is
  // read of x, so many elements, in the second-level cache.
  template <class F>
  void for_all(std::int64_t first, std::int64_t last, std::int64_t together, std::int64_t chunk, F&& f,
               std::int64_t elements = 128 * 1024) const {
    const bool by_panels = m * k <= elements;
    const std::int64_t deep = by_panels ? k : chunk;
    for (std::int64_t outer = 0; outer < k; outer += deep) {
      for (std::int64_t panel = first; panel < last; panel += together) {
        for (std::int64_t p = outer; p < std::min(k, outer + deep); p += chunk) f(panel, p);
      }
    }
  }
};

// By the kernels of a level: avx2 or avx512, where the latter needs VNNI. They give the same bits.
template <WeightType type, CpuLevel level>
struct PanelProduct {
  using P = std::conditional_t<level == CpuLevel::avx2, avx2::Panels<type>, avx512::Panels<type>>;
  using Dots = std::conditional_t<level == CpuLevel::avx2, avx2::DotsOf<type>, avx512::DotsOf<type>>;
  static constexpr std::int64_t most = Dots::most;  // rows of x at once
  static constexpr std::int64_t direct = Dots::direct(P::groups);
  static constexpr std::int64_t chunk = 512;  // elements along k whose records stay in the first-level cache
  static constexpr std::int64_t block = layout_of(type).block;

  // Floats for x.
  static std::int64_t scratch(std::int64_t m, std::int64_t k) { return Dots::floats(m) * (k / 32); }
  static std::int64_t depth(const PanelProblem& a, std::int64_t p) { return std::min(chunk, a.k - p); }
  static const float* rows_at(const PanelProblem& a, std::int64_t p, std::int64_t i) {
    return a.x + Dots::floats(a.m) * (p / 32) + Dots::floats(i) * (depth(a, p) / 32);
  }

  // Rows [first, last), both multiples of `most` or m.
  static void prepare(const PanelProblem& a, const float* x, std::int64_t first, std::int64_t last) {
    for (std::int64_t p = 0; p < a.k; p += chunk) {
      for (std::int64_t i = first, size; i < last; i += size) {
        size = Dots::together(a.m - i);
        Dots::prepare(x + i * a.k + p, a.k, size, size, depth(a, p) / 32, P::offset,
                      const_cast<float*>(rows_at(a, p, i)));
      }
    }
  }

  static void multiply(const PanelProblem& a, std::int64_t first, std::int64_t last) {
    a.for_all_chunks(
        first, last, chunk, Dots::kept_elements,
        [&](std::int64_t panel, std::int64_t p, const PanelProblem::Sums& sums) { multiply_chunk(a, panel, p, sums); });
  }
  static void multiply_chunk(const PanelProblem& a, std::int64_t panel, std::int64_t p,
                             const PanelProblem::Sums& sums) {
    alignas(64) std::byte records[chunk / 32 * P::record];
    const std::int64_t rows = std::min(panel_rows, a.n - panel * panel_rows), blocks = depth(a, p) / block;
    const std::byte* const w = a.panel(type, panel, p);
    const bool unpacked = a.m > direct || rows < panel_rows;
    if (rows < panel_rows)
      unpack<false>(w, rows, blocks, records);
    else if (unpacked)
      unpack<true>(w, rows, blocks, records);
    for (std::int64_t i = 0, size; i < a.m; i += size) {
      size = Dots::together(a.m - i);
      const auto from = sums.from(i), to = sums.to(i);
      const float* const x = rows_at(a, p, i);
      with_rows(size, [&]<int M>() {
        if (unpacked)
          Dots::template multiply<M>(x, records, P::record, depth(a, p) / 32, from, to);
        else
          Dots::template multiply_blocks<M, type>(x, w, blocks, from, to);
      });
    }
  }
  template <bool full>
  static void unpack(const std::byte* w, std::int64_t rows, std::int64_t blocks, std::byte* records) {
    if constexpr (level == CpuLevel::avx2)
      avx2::unpack_panel<type, full>(w, rows, blocks, records);
    else
      avx512::unpack_panel<type, full>(w, rows, blocks, records);
  }
  template <class F>
  static void with_rows(std::int64_t rows, F&& f) {
    if constexpr (most > 4) {
      if (rows > 4) return rows == 6 ? f.template operator()<6>() : f.template operator()<8>();
    }
    switch (rows) {
      case 1: return f.template operator()<1>();
      case 2: return f.template operator()<2>();
      case 3: return f.template operator()<3>();
      default: return f.template operator()<4>();
    }
  }
};

// bf16: what is packed of x are pairs, and two panels meet it at a time.
template <>
struct PanelProduct<WeightType::bf16, CpuLevel::avx512> {
  static constexpr std::int64_t most = 12;
  static constexpr std::int64_t chunk = 2048;  // elements along k after which sums go to memory and come back

  static std::int64_t scratch(std::int64_t m, std::int64_t k) { return m * (k / 2); }
  static std::int64_t depth(const PanelProblem& a, std::int64_t p) { return std::min(chunk, a.k - p); }
  static const float* rows_at(const PanelProblem& a, std::int64_t p, std::int64_t i) {
    return a.x + a.m * (p / 2) + i * (depth(a, p) / 2);
  }
  static void prepare(const PanelProblem& a, const float* x, std::int64_t first, std::int64_t last) {
    for (std::int64_t p = 0; p < a.k; p += chunk) {
      for (std::int64_t i = first; i < last; i += most) {
        PairPanels::prepare(x + i * a.k + p, a.k, std::min(most, a.m - i), depth(a, p),
                            const_cast<float*>(rows_at(a, p, i)));
      }
    }
  }
  static void multiply(const PanelProblem& a, std::int64_t first, std::int64_t last) {
    const std::int64_t full = std::min(last, a.n / panel_rows), pairs = first + (full - first) / 2 * 2;
    a.for_all(first, pairs, 2, chunk, [&](std::int64_t panel, std::int64_t p) { multiply_chunk<2>(a, panel, p); });
    a.for_all(pairs, last, 1, chunk, [&](std::int64_t panel, std::int64_t p) { multiply_chunk<1>(a, panel, p); });
  }
  template <int P>
  static void multiply_chunk(const PanelProblem& a, std::int64_t panel, std::int64_t p) {
    const std::int64_t rows = std::min(panel_rows, a.n - panel * panel_rows);
    const std::int64_t apart = panel_rows * static_cast<std::int64_t>(row_bytes(WeightType::bf16, a.k));
    for (std::int64_t i = 0; i < a.m; i += most) {
      multiply_rows<P>(std::min(most, a.m - i), rows_at(a, p, i), a.panel(WeightType::bf16, panel, p), apart, rows,
                       depth(a, p) / 2, a.place(i, panel, p));
    }
  }
  template <int P, int M = most>
  static void multiply_rows(std::int64_t m, const float* x, const std::byte* w, std::int64_t apart, std::int64_t rows,
                            std::int64_t pairs, const PanelPlace& y) {
    if constexpr (M > 1) {
      if (m < M) return multiply_rows<P, M - 1>(m, x, w, apart, rows, pairs, y);
    }
    PairPanels::multiply<M, P>(x, w, apart, rows, pairs, y);
  }
};

// All of them by Product, which prepares x once.
template <class Product>
void multiply_panels(HostStream& stream, View<const float> x, std::span<const PanelTerm> terms) {
  constexpr std::int64_t most = PanelProblem::most_rows;
  const std::int64_t m = x.shape()[0], k = x.shape()[1];
  auto& team = stream.device().team();
  auto buffer =
      stream.device().allocate(static_cast<std::size_t>(Product::scratch(std::min(m, most), k)) * sizeof(float));
  for (std::int64_t i = 0; i < m; i += most) {
    PanelProblem problem{
        reinterpret_cast<float*>(buffer.data()), nullptr, nullptr, nullptr, std::min(most, m - i), 0, k};
    const std::int64_t rows_at_once = std::max<std::int64_t>(1, 65536 / (k * Product::most)) * Product::most;
    const std::int64_t panels_at_once = std::max<std::int64_t>(2, 65536 / (k * problem.m) / 2 * 2);
    parallel_for(team, problem.m, rows_at_once, [&](std::int64_t begin, std::int64_t end) {
      Product::prepare(problem, x.data() + i * k, begin, end);
    });
    for (const PanelTerm& term : terms) {
      problem.n = term.y.shape()[1];
      problem.w = term.w;
      problem.y = term.y.data() + i * problem.n;
      problem.bias = term.bias;
      parallel_for(team, (problem.n + panel_rows - 1) / panel_rows, panels_at_once,
                   [&](std::int64_t begin, std::int64_t end) { Product::multiply(problem, begin, end); });
    }
  }
}

// f.operator()<type>() for a type that panels have.
template <class F>
decltype(auto) with_panels(WeightType type, F&& f) {
  if (type == WeightType::bf16) return f.template operator()<WeightType::bf16>();
  return with_groups(type, [&]<WeightType quantised>(Groups<quantised>) { return f.template operator()<quantised>(); });
}

#endif
}  // namespace kernels

}  // namespace troika
