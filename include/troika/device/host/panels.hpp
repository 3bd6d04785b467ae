// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
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
  const auto bytes = static_cast<std::int64_t>(layout_of(type).bytes);
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
  return is_quantised(type) && cpu_has_vnni() && device.options().precision == Precision::fast;
}

// Puts a weight that products will read into panels, where the device wants that; in place, but for a copy of 16 rows.
inline void prepare_for_products(HostDevice& device, Weight<HostDevice>& weight) {
  if (weight.order() != WeightOrder::rows || weight.shape().dims() != 2 || !wants_panels(device, weight.type())) return;
  const auto type = weight.type();
  const auto fields = kernels::panel_fields(type);
  const auto row = static_cast<std::int64_t>(row_bytes(type, weight.shape()[1]));
  const auto bytes = static_cast<std::int64_t>(layout_of(type).bytes), blocks = row / bytes;
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

#if defined(__x86_64__)
namespace kernels {

// y (m, n) = x wT + bias for one type of panels.
template <WeightType type>
struct PanelProduct {
  using P = Panels<type>;
  using Dots = PanelDots<P::fine, P::minimum>;
  using Place = typename Dots::Place;
  static constexpr int most = 8;                                    // rows of x at once
  static constexpr std::int64_t direct = P::groups == 1 ? 32 : 16;  // so few meet blocks that are not unpacked before
  static constexpr std::int64_t chunk = 512;            // elements along k whose records stay in the first-level cache
  static constexpr std::int64_t together = 128 * 1024;  // elements of x that stay in the second-level cache
  static constexpr std::int64_t block = layout_of(type).block;

  struct Problem {
    const float* x;  // prepared: chunk by chunk, group of rows by group of rows
    const std::byte* w;
    float* y;
    const float* bias;
    std::int64_t m, n, k;

    std::int64_t group_rows() const {
      const std::int64_t groups = (m + most - 1) / most;
      return (m + groups - 1) / groups;
    }
    std::int64_t depth(std::int64_t p) const { return std::min(chunk, k - p); }
    const float* rows_at(std::int64_t p, std::int64_t i) const {
      return x + Dots::floats(m) * (p / 32) + Dots::floats(i) * (depth(p) / 32);
    }
  };
  static std::int64_t scratch(std::int64_t m, std::int64_t k) { return Dots::floats(m) * (k / 32); }

  static void prepare(const Problem& a, const float* x, std::int64_t first, std::int64_t last) {
    for (std::int64_t p = 0; p < a.k; p += chunk) {
      for (std::int64_t i = first; i < last; i += a.group_rows()) {
        Dots::prepare(x + i * a.k + p, a.k, std::min(a.group_rows(), a.m - i), a.depth(p) / 32, P::offset,
                      const_cast<float*>(a.rows_at(p, i)));
      }
    }
  }

  // All rows of x, elements [p, p + chunk), with one panel.
  static void multiply(const Problem& a, std::int64_t panel, std::int64_t p) {
    alignas(64) std::byte records[chunk / 32 * P::record];
    const std::int64_t column = panel * panel_rows, rows = std::min(panel_rows, a.n - column), depth = a.depth(p);
    const std::byte* const w = a.w + column * static_cast<std::int64_t>(row_bytes(type, a.k)) +
                               rows * static_cast<std::int64_t>(row_bytes(type, p));
    const auto columns = static_cast<__mmask16>((1u << rows) - 1u);
    float* const y = a.y + column;
    const float* const bias = a.bias ? a.bias + column : nullptr;
    const std::int64_t size = a.group_rows(), blocks = depth / block;
    const bool records_pay = a.m > direct;
    if (records_pay && rows == panel_rows) unpack_panel<type, true>(w, rows, blocks, records);
    if (records_pay && rows < panel_rows) unpack_panel<type, false>(w, rows, blocks, records);
    for (std::int64_t i = 0; i < a.m; i += size) {
      const Place to{y + i * a.n, a.n, columns, p > 0, bias};
      const std::int64_t count = std::min(size, a.m - i);
      if (records_pay)
        multiply_records(count, a.rows_at(p, i), records, depth / 32, to);
      else if (rows == panel_rows)
        multiply_blocks<true>(count, a.rows_at(p, i), w, rows, blocks, to);
      else
        multiply_blocks<false>(count, a.rows_at(p, i), w, rows, blocks, to);
    }
  }
  template <bool full, int M = most>
  static void multiply_blocks(std::int64_t m, const float* x, const std::byte* w, std::int64_t rows,
                              std::int64_t blocks, const Place& y) {
    if constexpr (M > 1) {
      if (m < M) return multiply_blocks<full, M - 1>(m, x, w, rows, blocks, y);
    }
    Dots::template multiply_blocks<M, type, full>(x, w, rows, blocks, y);
  }
  template <int M = most>
  static void multiply_records(std::int64_t m, const float* x, const std::byte* records, std::int64_t groups,
                               const Place& y) {
    if constexpr (M > 1) {
      if (m < M) return multiply_records<M - 1>(m, x, records, groups, y);
    }
    Dots::template multiply<M>(x, records, P::record, groups, y);
  }

  // Panels [first, last). What is read of x stays in the second-level cache.
  static void multiply_panels(const Problem& a, std::int64_t first, std::int64_t last) {
    if (a.m * a.k <= together) {
      for (std::int64_t panel = first; panel < last; ++panel) {
        for (std::int64_t p = 0; p < a.k; p += chunk) multiply(a, panel, p);
      }
    } else {
      for (std::int64_t p = 0; p < a.k; p += chunk) {
        for (std::int64_t panel = first; panel < last; ++panel) multiply(a, panel, p);
      }
    }
  }
};

}  // namespace kernels
#endif

}  // namespace troika
