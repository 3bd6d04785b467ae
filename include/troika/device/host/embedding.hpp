// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <troika/core/dtype.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/linear.hpp>

namespace troika {

// y (ids, d) = rows of a table that is split by rows: `table` (n, d) holds rows [first, first + n) of the vocabulary. An
// id of another shard gives a row of zeros, so that the sum over the ranks is the embedding.
template <WeightElement W>
void embedding(HostStream&, std::span<const std::int32_t> ids, View<W> table, std::int64_t first, View<float> y,
               CpuLevel = cpu_level()) {
  expects(table.shape().dims() == 2 && y.shape().dims() == 2 && y.shape()[1] == table.shape()[1] &&
              y.shape()[0] == static_cast<std::int64_t>(ids.size()),
          [&] {
            return "embedding takes a table (rows, d) and y (" + std::to_string(ids.size()) + ", d), not " +
                   table.shape().to_string() + " and " + y.shape().to_string();
          });
  const std::int64_t n = table.shape()[0], d = table.shape()[1];
  for (std::size_t i = 0; i < ids.size(); ++i) {
    expects(ids[i] >= 0, [&] { return "a token id is at least 0, not " + std::to_string(ids[i]); });
    const std::int64_t row = ids[i] - first;
    float* out = y.data() + static_cast<std::int64_t>(i) * d;
    for (std::int64_t j = 0; j < d; ++j) out[j] = row >= 0 && row < n ? static_cast<float>(table[row * d + j]) : 0.0f;
  }
}

}  // namespace troika
