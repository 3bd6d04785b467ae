// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>

#include <troika/core/error.hpp>

namespace troika {

// Extents of a dense row-major tensor, at most four. A value, never on the heap.
class Shape {
 public:
  static constexpr int max_dims = 4;

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<std::int64_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}
  constexpr explicit Shape(std::span<const std::int64_t> extents) {
    expects(extents.size() <= max_dims,
            [&] { return "a shape has at most 4 dimensions, not " + std::to_string(extents.size()); });
    std::int64_t total = 1;
    for (const auto extent : extents) {
      expects(extent >= 0, [&] { return "an extent cannot be negative: " + std::to_string(extent); });
      // Hostile files state sizes: the product must fit before anybody multiplies it by an element size.
      expects(extent == 0 || total <= (std::numeric_limits<std::int64_t>::max() / 16) / extent,
              "the number of elements of a shape overflows");
      total *= extent;
      extents_[static_cast<std::size_t>(dims_++)] = extent;
    }
  }

  constexpr int dims() const { return dims_; }
  constexpr std::int64_t operator[](int dim) const { return extents_[static_cast<std::size_t>(dim)]; }
  constexpr std::int64_t count() const {
    std::int64_t total = 1;
    for (int d = 0; d < dims_; ++d) total *= (*this)[d];
    return total;
  }
  // This shape with one extent replaced.
  constexpr Shape with(int dim, std::int64_t extent) const {
    expects(dim >= 0 && dim < dims_, [&] { return to_string() + " has no dimension " + std::to_string(dim); });
    Shape other = *this;
    other.extents_[static_cast<std::size_t>(dim)] = extent;
    return other;
  }
  // Elements before and after one dimension: a tensor is (outer, extent, inner) around it.
  constexpr std::int64_t outer(int dim) const {
    std::int64_t total = 1;
    for (int d = 0; d < dim; ++d) total *= (*this)[d];
    return total;
  }
  constexpr std::int64_t inner(int dim) const {
    std::int64_t total = 1;
    for (int d = dim + 1; d < dims_; ++d) total *= (*this)[d];
    return total;
  }
  constexpr bool operator==(const Shape&) const = default;

  std::string to_string() const {
    std::string text = "(";
    for (int d = 0; d < dims_; ++d) text += (d ? ", " : "") + std::to_string((*this)[d]);
    return text + ")";
  }

 private:
  std::array<std::int64_t, max_dims> extents_{};
  int dims_ = 0;
};

// A dense row-major tensor that somebody else owns. Pass by value.
template <class T>
class View {
 public:
  using value_type = T;

  constexpr View() = default;
  constexpr View(T* data, Shape shape) : data_(data), shape_(shape) {}
  constexpr operator View<const T>() const requires(!std::is_const_v<T>) { return {data_, shape_}; }

  constexpr T* data() const { return data_; }
  constexpr const Shape& shape() const { return shape_; }
  constexpr std::int64_t count() const { return shape_.count(); }
  constexpr std::span<T> span() const { return {data_, static_cast<std::size_t>(count())}; }
  constexpr T& operator[](std::int64_t i) const { return data_[i]; }

  // Rows [begin, end) of the first dimension.
  constexpr View rows(std::int64_t begin, std::int64_t end) const {
    expects(0 <= begin && begin <= end && end <= shape_[0], [&] {
      return "rows " + std::to_string(begin) + " to " + std::to_string(end) + " of " + shape_.to_string();
    });
    return {data_ + begin * shape_.inner(0), shape_.with(0, end - begin)};
  }
  constexpr View reshaped(Shape shape) const {
    expects(shape.count() == count(), [&] { return "cannot read " + shape_.to_string() + " as " + shape.to_string(); });
    return {data_, shape};
  }

 private:
  T* data_ = nullptr;
  Shape shape_;
};

}  // namespace troika
