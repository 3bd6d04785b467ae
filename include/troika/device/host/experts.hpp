// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>

#include <troika/core/shape.hpp>
#include <troika/device/checks.hpp>
#include <troika/device/host/device.hpp>

namespace troika {

// For each row of scores (tokens, experts) the columns of the largest, the largest first and of equal ones the first,
// and their share of the softmax over all scores, or with `normalized` over the chosen ones. chosen, weights: (tokens,
// used).
inline void choose_experts(HostStream& stream, View<const float> scores, bool normalized, View<std::int32_t> chosen,
                           View<float> weights) {
  const std::int64_t tokens = scores.shape()[0], experts = scores.shape()[1], used = chosen.shape()[1];
  kernels::check_experts(scores.shape(), chosen.shape(), weights.shape());
  parallel_for(stream.device().team(), tokens, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* const row = scores.data() + t * experts;
      std::int32_t* const ids = chosen.data() + t * used;
      float* const share = weights.data() + t * used;
      for (std::int64_t k = 0; k < used; ++k) {
        std::int64_t best = -1;
        for (std::int64_t e = 0; e < experts; ++e) {
          if (best >= 0 && !(row[e] > row[best])) continue;
          if (std::find(ids, ids + k, static_cast<std::int32_t>(e)) == ids + k) best = e;
        }
        ids[k] = static_cast<std::int32_t>(best);
      }
      const float most = row[ids[0]];
      double total = 0;
      for (std::int64_t k = 0; k < used; ++k) share[k] = std::exp(row[ids[k]] - most);
      if (normalized) {
        for (std::int64_t k = 0; k < used; ++k) total += double{share[k]};
      } else {
        for (std::int64_t e = 0; e < experts; ++e) total += double{std::exp(row[e] - most)};
      }
      for (std::int64_t k = 0; k < used; ++k) share[k] = static_cast<float>(double{share[k]} / total);
    }
  });
}

// Row i of y is row rows[i] of x.
inline void gather_rows(HostStream& stream, View<const float> x, std::span<const std::int32_t> rows, View<float> y) {
  const std::int64_t width = x.shape()[1];
  parallel_for(stream.device().team(), std::ssize(rows), 16384 / width + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::copy_n(x.data() + rows[static_cast<std::size_t>(i)] * width, width, y.data() + i * width);
    }
  });
}

// Row rows[i] of y is added weights[i] times row i of x. No row is named twice.
inline void add_rows(HostStream& stream, View<const float> x, std::span<const std::int32_t> rows,
                     std::span<const float> weights, View<float> y) {
  const std::int64_t width = x.shape()[1];
  parallel_for(stream.device().team(), std::ssize(rows), 16384 / width + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* const from = x.data() + i * width;
      float* const to = y.data() + rows[static_cast<std::size_t>(i)] * width;
      const float weight = weights[static_cast<std::size_t>(i)];
      for (std::int64_t j = 0; j < width; ++j) to[j] += weight * from[j];
    }
  });
}

}  // namespace troika
