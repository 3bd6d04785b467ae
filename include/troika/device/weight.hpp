// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>

#include <troika/core/dtype.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/device.hpp>
#include <troika/device/tensor.hpp>

namespace troika {

// A weight matrix in a device's memory. Its element type is a value, not a type parameter: files mix types from tensor to
// tensor. Moves only.
template <Device D>
class Weight {
 public:
  Weight() = default;
  Weight(D& device, DType dtype, Shape shape)
      : buffer_(allocate(device, static_cast<std::size_t>(shape.count()) * size_of(dtype))), shape_(shape), dtype_(dtype) {}

  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  std::size_t bytes() const { return static_cast<std::size_t>(shape_.count()) * size_of(dtype_); }
  std::byte* data() { return buffer_.data(); }
  const std::byte* data() const { return buffer_.data(); }

  // Calls f with the View of the type that this weight has; only types a weight can be made of are offered.
  template <class F>
  decltype(auto) visit(F&& f) const {
    switch (dtype_) {
      case DType::f16: return f(View<const f16>{reinterpret_cast<const f16*>(data()), shape_});
      case DType::bf16: return f(View<const bf16>{reinterpret_cast<const bf16*>(data()), shape_});
      case DType::f32: return f(View<const float>{reinterpret_cast<const float*>(data()), shape_});
      default: break;
    }
    throw Error(Fault::unsupported, "no matrix product for weights of " + std::string(to_string(dtype_)) +
                                        "; valid types are f32, f16 and bf16");
  }

 private:
  // Weights are most of what a device holds, and they stay: a device that rounds sizes up should not do so here.
  static typename D::Buffer allocate(D& device, std::size_t bytes) {
    if constexpr (requires { device.allocate_exact(bytes); }) return device.allocate_exact(bytes);
    else return device.allocate(bytes);
  }

  typename D::Buffer buffer_;
  Shape shape_;
  DType dtype_ = DType::f32;
};

}  // namespace troika
