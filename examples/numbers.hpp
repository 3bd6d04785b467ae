// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <troika/core/shape.hpp>

// A matrix of random numbers for the examples: what a program of yours would read from a file.
struct Numbers {
  Numbers(std::int64_t rows, std::int64_t columns, unsigned seed)
      : shape{rows, columns}, values(static_cast<std::size_t>(rows * columns)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(columns)));
    for (auto& value : values) value = normal(random);
  }
  troika::View<const float> view() const { return {values.data(), shape}; }

  troika::Shape shape;
  std::vector<float> values;
};
