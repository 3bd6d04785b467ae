// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <troika/core/dtype.hpp>
#include <troika/core/weight_type.hpp>

namespace troika {

// What a weight may be stored as; it is widened to float where it is used.
template <class W>
concept WeightElement = std::same_as < std::remove_const_t<W>,
float > || std::same_as<std::remove_const_t<W>, f16> || std::same_as<std::remove_const_t<W>, bf16>;

// One side of a product: rows of k elements, element (i, p) at data[i * row_step + p * step]. One of the steps is 1.
template <class T>
struct Operand {
  const T* data;
  std::int64_t row_step;
  std::int64_t step = 1;

  const T* at(std::int64_t i, std::int64_t p) const { return data + i * row_step + p * step; }
  Operand part(std::int64_t i, std::int64_t p) const { return {at(i, p), row_step, step}; }
  std::int64_t row_bytes() const { return row_step * static_cast<std::int64_t>(sizeof(T)); }
};

// The same of quantised rows, with p a multiple of the block.
struct QuantisedRows {
  WeightType type;
  const std::byte* data;
  std::int64_t row_step;  // in bytes

  const std::byte* at(std::int64_t i, std::int64_t p) const {
    return data + i * row_step + static_cast<std::int64_t>(troika::row_bytes(type, p));
  }
  QuantisedRows part(std::int64_t i, std::int64_t p) const { return {type, at(i, p), row_step}; }
  std::int64_t row_bytes() const { return row_step; }
};

}  // namespace troika
