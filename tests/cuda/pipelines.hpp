// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <troika/device/cuda/cuda.hpp>
#include <troika/troika.hpp>

#include "support/run_ranks.hpp"

// Pipelines on GPUs, and on the host to compare them with.
namespace troika::test {

using Values = std::vector<float>;

inline Values numbers(std::int64_t count, int seed) {
  Values values;
  for (int i = 0; i < count; ++i) values.push_back(static_cast<float>((i * 37 + seed * 71) % 101) / 51 - 1);
  return values;
}
inline View<const float> matrix(const Values& values, std::int64_t columns) {
  return {values.data(), {static_cast<std::int64_t>(values.size()) / columns, columns}};
}

// So many GPUs, or ranks that share one.
inline std::vector<CudaDevice> devices(int ranks, bool shared, std::optional<std::int64_t> overlap_rows) {
  CudaOptions options{.precision = Precision::exact, .overlap_rows = overlap_rows};
  if (shared) return options.virtual_ranks = ranks, cuda_devices(options, {0});
  std::vector<int> all;
  for (int i = 0; i < ranks; ++i) all.push_back(i);
  return cuda_devices(options, all);
}

// What a user has: f(pipeline) on each rank, or what it throws.
template <class D, class Transport, class F>
auto try_pipelines(std::vector<D> all, const StaticAllocation& shares, const Transport& transport, F f,
                   CommunicationOptions options = {}) {
  TaskScheduler scheduler{all, shares};
  return try_ranks(std::move(all), [&](auto& rank) {
    Communication communication{rank, transport, options};
    DataSync sync{communication};
    Pipeline pipeline{scheduler, sync, communication};
    return f(pipeline);
  });
}

inline double distance(const Values& a, const Values& b) {
  double most = a.size() == b.size() ? 0 : 1e9, size = 1e-9;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    most = std::max(most, std::abs(double{a[i]} - b[i]));
    size = std::max(size, std::abs(double{b[i]}));
  }
  return most / size;
}

// What all ranks hold.
template <class Pipeline, class D>
Values values_of(Pipeline& pipeline, const DTensor<float, Replicate, D>& y) {
  if constexpr (HasOwnMemory<D>) {
    const auto host = read_back(pipeline.stream(), y.local());
    return {host.span().begin(), host.span().end()};
  } else {
    return {y.values().begin(), y.values().end()};
  }
}

}  // namespace troika::test
