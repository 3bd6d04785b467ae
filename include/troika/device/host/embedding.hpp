// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <troika/core/dtype.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/checks.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/gemm.hpp>
#include <troika/device/host/kernels.hpp>
#include <troika/device/host/panels.hpp>
#include <troika/device/host/quantised.hpp>
#include <troika/device/weight.hpp>

namespace troika {

namespace kernels {

// y(i) = fetch(ids[i] - first), or zeros where there is no such row.
template <class Fetch>
void look_up(HostStream& stream, std::span<const std::int32_t> ids, const Shape& table, std::int64_t first,
             View<float> y, Fetch fetch) {
  check_embedding(ids.size(), table, y.shape());
  for (const auto id : ids) expects(id >= 0, [&] { return "a token id is at least 0, not " + std::to_string(id); });
  const std::int64_t d = table[1], grain = 16384 / std::max<std::int64_t>(d, 1) + 1;
  parallel_for(stream.device().team(), y.shape()[0], grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = ids[static_cast<std::size_t>(i)] - first;
      float* const out = y.data() + i * d;
      if (row >= 0 && row < table[0])
        fetch(row, out);
      else
        std::fill(out, out + d, 0.0f);
    }
  });
}

}  // namespace kernels

// y (ids, d) = rows of a table that is split by rows: `table` (n, d) holds rows [first, first + n) of the vocabulary.
// An id of another shard gives a row of zeros, so that the sum over the ranks is the embedding.
template <WeightElement W>
void embedding(HostStream& stream, std::span<const std::int32_t> ids, View<W> table, std::int64_t first, View<float> y,
               CpuLevel level = cpu_level()) {
  const std::int64_t d = y.shape()[1];
  kernels::at_level<kernels::Rows>(level, [&]<class R>(R) {
    kernels::look_up(stream, ids, table.shape(), first, y,
                     [&](std::int64_t row, float* out) { R::widen(table.data() + row * d, out, d); });
  });
}
// The same with a quantised table.
inline void embedding(HostStream& stream, std::span<const std::int32_t> ids, QuantisedView table, std::int64_t first,
                      View<float> y, CpuLevel level = cpu_level()) {
  const std::int64_t d = y.shape()[1];
  const std::size_t bytes = row_bytes(table.type, d);
  kernels::at_level<kernels::FloatProduct>(level, [&]<CpuLevel L>(kernels::FloatProduct<L>) {
    kernels::look_up(stream, ids, table.shape(), first, y, [&](std::int64_t row, float* out) {
      kernels::expand<L>(table.type, table.data + static_cast<std::size_t>(row) * bytes, d, out);
    });
  });
}

// The same with a table in panels.
inline void embedding(HostStream& stream, std::span<const std::int32_t> ids, PanelView table, std::int64_t first,
                      View<float> y, CpuLevel level = cpu_level()) {
  const std::int64_t d = y.shape()[1];
  const auto bytes = static_cast<std::int64_t>(row_bytes(table.type, d));
  const std::int64_t blocks = d / kernels::panel_block(table.type);
  kernels::at_level<kernels::FloatProduct>(level, [&]<CpuLevel L>(kernels::FloatProduct<L>) {
    kernels::look_up(stream, ids, table.shape(), first, y, [&](std::int64_t row, float* out) {
      auto buffer = stream.device().allocate(static_cast<std::size_t>(bytes));
      const std::int64_t panel = row / panel_rows * panel_rows;
      kernels::copy_panel_row(table.type, table.data + panel * bytes, std::min(panel_rows, table.shape()[0] - panel),
                              row - panel, blocks, buffer.data());
      if (table.type == WeightType::bf16)
        kernels::Rows<L>::widen(reinterpret_cast<const bf16*>(buffer.data()), out, d);
      else
        kernels::expand<L>(table.type, buffer.data(), d, out);
    });
  });
}

}  // namespace troika
