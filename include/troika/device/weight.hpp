// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <troika/core/dtype.hpp>
#include <troika/core/error.hpp>
#include <troika/core/shape.hpp>
#include <troika/core/weight_type.hpp>
#include <troika/device/device.hpp>
#include <troika/device/tensor.hpp>

namespace troika {

// A matrix of quantised rows: blocks as files hold them, row after row, at any address.
struct QuantisedView {
  WeightType type = WeightType::q8_0;
  const std::byte* data = nullptr;
  Shape shape_{};

  const Shape& shape() const { return shape_; }
};

// The same in an order of the device's own, which its products read faster (device/host/panel_fields.hpp).
struct PanelView {
  WeightType type = WeightType::q8_0;
  const std::byte* data = nullptr;
  Shape shape_{};

  const Shape& shape() const { return shape_; }
};

enum class WeightOrder : std::uint8_t { rows, panels };

// A weight matrix in a device's memory. Its element type is a value, not a type parameter: files mix types from tensor
// to tensor. Moves only.
template <Device D>
class Weight {
 public:
  Weight() = default;
  // Rows of quantised types are whole blocks: the last dimension is a multiple of the block.
  Weight(D& device, WeightType type, Shape shape)
      : buffer_(allocate(device, bytes_of(type, shape))), bytes_(bytes_of(type, shape)), shape_(shape), type_(type) {}
  Weight(D& device, DType dtype, Shape shape) : Weight(device, type_of(dtype), shape) {}

  const Shape& shape() const { return shape_; }
  WeightType type() const { return type_; }
  std::size_t bytes() const { return bytes_; }
  std::byte* data() { return buffer_.data(); }
  const std::byte* data() const { return buffer_.data(); }

  // What its bytes are; who reorders them says so.
  WeightOrder order() const { return order_; }
  void set_order(WeightOrder order) { order_ = order; }

  // Calls f with a View of the type that this weight has, or with a QuantisedView or PanelView.
  template <class F>
  decltype(auto) visit(F&& f) const {
    if (order_ == WeightOrder::panels) return f(PanelView{type_, data(), shape_});
    switch (type_) {
      case WeightType::f32: return f(View<const float>{reinterpret_cast<const float*>(data()), shape_});
      case WeightType::f16: return f(View<const f16>{reinterpret_cast<const f16*>(data()), shape_});
      case WeightType::bf16: return f(View<const bf16>{reinterpret_cast<const bf16*>(data()), shape_});
      default: return f(QuantisedView{type_, data(), shape_});
    }
  }

 private:
  // Weights are most of what a device holds, and they stay: a device that rounds sizes up should not do so here.
  static typename D::Buffer allocate(D& device, std::size_t bytes) {
    if constexpr (requires { device.allocate_exact(bytes); })
      return device.allocate_exact(bytes);
    else
      return device.allocate(bytes);
  }

  static std::size_t bytes_of(WeightType type, const Shape& shape) {
    const auto& layout = layout_of(type);
    if (layout.block == 1) return static_cast<std::size_t>(shape.count()) * layout.bytes;
    const std::int64_t columns = shape.dims() == 2 ? shape[1] : 0;
    expects(shape.dims() == 2 && columns % layout.block == 0, [&] {
      return "a weight of type " + std::string(layout.name) + " cannot be " + shape.to_string() +
             "; it is (rows, columns), and columns are a multiple of " + std::to_string(layout.block);
    });
    return static_cast<std::size_t>(shape[0]) * row_bytes(type, columns);
  }
  static WeightType type_of(DType dtype) {
    const auto type = weight_type_of(dtype);
    if (type) return *type;
    throw Error(Fault::unsupported, "no matrix product for weights of " + std::string(to_string(dtype)) +
                                        "; valid types are f32, f16, bf16 and the quantised ones");
  }

  typename D::Buffer buffer_;
  std::size_t bytes_ = 0;
  Shape shape_;
  WeightType type_ = WeightType::f32;
  WeightOrder order_ = WeightOrder::rows;
};

// y (tokens, out) = x (tokens, in) wT + bias; of several of them, with one x.
template <Device D>
struct Product {
  const Weight<D>& weight;
  View<float> y;
  const float* bias;  // (out), or null
};

// Once its values are there: puts a weight into the order that this device's products like best, if it has one.
template <Device D>
void make_ready(D& device, Weight<D>& weight) {
  if constexpr (requires { prepare_for_products(device, weight); }) prepare_for_products(device, weight);
}

}  // namespace troika
