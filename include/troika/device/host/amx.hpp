// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <troika/core/shape.hpp>
#include <troika/core/weight_type.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/kernels.hpp>
#include <troika/device/host/panels.hpp>

// Products in the matrix unit, beside PanelProduct and with the same panels. Rows of x come 16 at a time; what is
// lacking of them are zeros, whose products go nowhere.
namespace troika::kernels {

// Whether so many rows meet panels of this type in the matrix unit. Before bf16 all rows do, because its sums round
// differently, and a row shall have the same bits alone and among others; before quantised weights bits do not depend
// on it, and a few rows are faster without.
inline bool wants_amx(HostDevice& device, WeightType type, std::int64_t rows) {
  return device.options().matrix_unit && (rows > 8 || type == WeightType::bf16) && cpu_has_amx();
}

#if defined(__x86_64__)
using avx512::amx_rows;

constexpr std::int64_t in_tiles(std::int64_t rows) { return (rows + amx_rows - 1) / amx_rows * amx_rows; }

// Quantised: records of a chunk are made once and stay in the first-level cache while all rows of x pass by.
template <WeightType type, class Unit>
struct AmxProduct {
  using P = avx512::Panels<type>;
  using Dots = avx512::AmxDots<P::fine, P::minimum>;
  static constexpr std::int64_t most = amx_rows, chunk = PanelProduct<type, CpuLevel::avx512>::chunk;

  static std::int64_t scratch(std::int64_t m, std::int64_t k) { return Dots::floats(in_tiles(m)) * (k / 32); }
  static std::int64_t depth(const PanelProblem& a, std::int64_t p) { return std::min(chunk, a.k - p); }
  static const float* rows_at(const PanelProblem& a, std::int64_t p, std::int64_t i) {
    return a.x + Dots::floats(in_tiles(a.m)) * (p / 32) + Dots::floats(i) * (depth(a, p) / 32);
  }
  static void prepare(const PanelProblem& a, const float* x, std::int64_t first, std::int64_t last) {
    for (std::int64_t p = 0; p < a.k; p += chunk) {
      for (std::int64_t i = first; i < last; i += most) {
        Dots::prepare(x + i * a.k + p, a.k, std::min(most, a.m - i), most, depth(a, p) / 32, P::offset,
                      const_cast<float*>(rows_at(a, p, i)));
      }
    }
  }
  static void multiply(const PanelProblem& a, std::int64_t first, std::int64_t last) {
    Unit unit(Dots::shapes());
    a.for_all_chunks(first, last, chunk, Dots::kept_elements,
                     [&](std::int64_t panel, std::int64_t p, const PanelProblem::Sums& sums) {
                       alignas(64) std::byte records[chunk / 32 * P::record];
                       unpack(a, panel, p, records);
                       for (std::int64_t i = 0; i < a.m; i += most) {
                         Dots::multiply(unit, rows_at(a, p, i), records, P::record, depth(a, p) / 32,
                                        std::min(most, a.m - i), sums.from(i), sums.to(i));
                       }
                     });
  }
  static void unpack(const PanelProblem& a, std::int64_t panel, std::int64_t p, std::byte* records) {
    const std::int64_t rows = std::min(panel_rows, a.n - panel * panel_rows);
    const std::int64_t blocks = depth(a, p) / layout_of(type).block;
    if (rows < panel_rows)
      avx512::unpack_panel<type, false>(a.panel(type, panel, p), rows, blocks, records);
    else
      avx512::unpack_panel<type, true>(a.panel(type, panel, p), rows, blocks, records);
    Dots::template make_signed<P::offset>(records, P::record, depth(a, p) / 32);
  }
};

// bf16: two panels meet 32 rows of x at a time.
template <class Unit>
struct AmxProduct<WeightType::bf16, Unit> {
  static constexpr std::int64_t most = amx_rows;
  static constexpr std::int64_t chunk = 1024;  // elements along k after which sums go to memory
  static constexpr std::int64_t elements = 512 * 1024;

  static std::int64_t scratch(std::int64_t m, std::int64_t k) { return Pairs::interleaved(in_tiles(m), k); }
  static std::int64_t depth(const PanelProblem& a, std::int64_t p) { return std::min(chunk, a.k - p); }
  static const float* rows_at(const PanelProblem& a, std::int64_t p, std::int64_t i) {
    return a.x + Pairs::interleaved(in_tiles(a.m), p) + Pairs::interleaved(i, depth(a, p));
  }
  static void prepare(const PanelProblem& a, const float* x, std::int64_t first, std::int64_t last) {
    for (std::int64_t p = 0; p < a.k; p += chunk) {
      for (std::int64_t i = first; i < last; i += most) {
        Pairs::interleave(x + i * a.k + p, a.k, std::min(most, a.m - i), most, depth(a, p),
                          const_cast<float*>(rows_at(a, p, i)));
      }
    }
  }
  static void multiply(const PanelProblem& a, std::int64_t first, std::int64_t last) {
    Unit unit(avx512::AmxPairs::shapes());
    const std::int64_t whole = a.k % 32 == 0 ? std::min(last, a.n / panel_rows) : first;
    const std::int64_t pairs = whole > first ? first + (whole - first) / 2 * 2 : first;
    a.for_all(
        first, pairs, 2, chunk,
        [&](std::int64_t panel, std::int64_t p) {
          multiply_rows<2>(unit, a, panel, p, a.panel(WeightType::bf16, panel, p));
        },
        elements);
    a.for_all(
        pairs, last, 1, chunk, [&](std::int64_t panel, std::int64_t p) { multiply_one(unit, a, panel, p); }, elements);
  }
  // A panel that lacks rows, or elements of the last tile, is copied to whole lines.
  static void multiply_one(Unit& unit, const PanelProblem& a, std::int64_t panel, std::int64_t p) {
    const std::byte* w = a.panel(WeightType::bf16, panel, p);
    const std::int64_t rows = std::min(panel_rows, a.n - panel * panel_rows), lines = depth(a, p) / 2;
    if (rows == panel_rows && lines % 16 == 0) return multiply_rows<1>(unit, a, panel, p, w);
    alignas(64) std::byte copy[chunk / 2][64];
    std::memset(copy, 0, static_cast<std::size_t>(in_tiles(lines) * 64));
    for (std::int64_t i = 0; i < lines; ++i, w += 4 * rows) std::memcpy(copy[i], w, static_cast<std::size_t>(4 * rows));
    multiply_rows<1>(unit, a, panel, p, copy[0]);
  }
  template <int P>
  static void multiply_rows(Unit& unit, const PanelProblem& a, std::int64_t panel, std::int64_t p, const std::byte* w) {
    const std::int64_t w_apart = panel_rows * static_cast<std::int64_t>(row_bytes(WeightType::bf16, a.k));
    const std::int64_t steps = (depth(a, p) + 31) / 32, x_apart = Pairs::interleaved(most, depth(a, p));
    for (std::int64_t i = 0; i < a.m; i += 2 * most) {
      const auto y = a.place(i, panel, p);
      if (a.m - i > most)
        avx512::AmxPairs::multiply<2, P>(unit, rows_at(a, p, i), x_apart, w, w_apart, steps, a.m - i, y);
      else
        avx512::AmxPairs::multiply<1, P>(unit, rows_at(a, p, i), x_apart, w, w_apart, steps, a.m - i, y);
    }
  }
};
#endif

}  // namespace troika::kernels
