// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include <troika/core/dtype.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/topology.hpp>

namespace troika::test {

inline constexpr double epsilon = 0x1p-24;  // half a unit in the last place of a float near 1

// Every level that this processor has: the kernels of all of them are tested.
inline std::vector<CpuLevel> levels() {
  std::vector<CpuLevel> all;
  for (const auto level : {CpuLevel::plain, CpuLevel::avx2, CpuLevel::avx512})
    if (level <= cpu_level()) all.push_back(level);
  return all;
}

// A device of this many threads, on the cores at hand, some of them twice where there are fewer.
inline HostDevice device_of(int threads, Precision precision = Precision::fast, bool invariant = false) {
  HostOptions options{.precision = precision, .invariant = invariant};
  if (threads == 1) return HostDevice(0, options);
  const auto cores = available_cores();
  for (int i = 0; i < threads; ++i) options.cores.push_back(cores[static_cast<std::size_t>(i) % cores.size()]);
  return HostDevice(0, options);
}

template <class T = float>
std::vector<T> random_values(std::int64_t count, unsigned seed, float low = -1, float high = 1) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (auto& value : values) value = static_cast<T>(uniform(generator));
  return values;
}

template <class T>
View<const T> view(const std::vector<T>& values, Shape shape) {
  return {values.data(), shape};
}
template <class T>
View<T> view(std::vector<T>& values, Shape shape) {
  return {values.data(), shape};
}

// Both NaN, both the same infinity, or no farther apart than `bound`.
inline bool close(double value, double expected, double bound) {
  if (std::isnan(expected) || std::isnan(value)) return std::isnan(expected) && std::isnan(value);
  return value == expected || std::abs(value - expected) <= bound;
}

}  // namespace troika::test
