// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <troika/core/dtype.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/gemm.hpp>
#include <troika/device/host/kernels.hpp>

namespace troika {

// y (ids, d) = rows of a table that is split by rows: `table` (n, d) holds rows [first, first + n) of the vocabulary. An
// id of another shard gives a row of zeros, so that the sum over the ranks is the embedding.
template <WeightElement W>
void embedding(HostStream& stream, std::span<const std::int32_t> ids, View<W> table, std::int64_t first, View<float> y,
               CpuLevel level = cpu_level()) {
  expects(table.shape().dims() == 2 && y.shape().dims() == 2 && y.shape()[1] == table.shape()[1] &&
              y.shape()[0] == static_cast<std::int64_t>(ids.size()),
          [&] {
            return "embedding takes a table (rows, d) and y (" + std::to_string(ids.size()) + ", d), not " +
                   table.shape().to_string() + " and " + y.shape().to_string();
          });
  for (const auto id : ids) expects(id >= 0, [&] { return "a token id is at least 0, not " + std::to_string(id); });
  const std::int64_t n = table.shape()[0], d = table.shape()[1];
  kernels::at_level<kernels::Rows>(level, [&]<class R>(R) {
    const std::int64_t grain = 16384 / std::max<std::int64_t>(d, 1) + 1;
    parallel_for(stream.device().team(), y.shape()[0], grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t row = ids[static_cast<std::size_t>(i)] - first;
        float* const out = y.data() + i * d;
        if (row >= 0 && row < n) R::widen(table.data() + row * d, out, d);
        else std::fill(out, out + d, 0.0f);
      }
    });
  });
}

}  // namespace troika
