// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>

#include <troika/core/shape.hpp>
#include <troika/device/device.hpp>

namespace troika {

// Owns a dense row-major tensor in a device's memory. Moves only; the memory goes back to its device.
template <class T, Device D>
class Tensor {
 public:
  using value_type = T;

  Tensor() = default;
  // Contents are undefined until written.
  Tensor(D& device, Shape shape)
      : buffer_(device.allocate(static_cast<std::size_t>(shape.count()) * sizeof(T))), shape_(shape) {}

  const Shape& shape() const { return shape_; }
  std::int64_t count() const { return shape_.count(); }
  T* data() { return reinterpret_cast<T*>(buffer_.data()); }
  const T* data() const { return reinterpret_cast<const T*>(buffer_.data()); }
  View<T> view() { return {data(), shape_}; }
  View<const T> view() const { return {data(), shape_}; }
  std::span<T> span() { return view().span(); }
  std::span<const T> span() const { return view().span(); }

  // The same memory under another shape of equal count.
  Tensor reshaped(Shape shape) && {
    (void)view().reshaped(shape);
    Tensor other = std::move(*this);
    other.shape_ = shape;
    return other;
  }

 private:
  typename D::Buffer buffer_;
  Shape shape_;
};

}  // namespace troika
