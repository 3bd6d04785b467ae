// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>

#include <kernels/activation.cuh>
#include <troika/device/checks.hpp>
#include <troika/device/cuda/elementwise.hpp>
#include <troika/device/cuda/slices.hpp>

#include "queue.hpp"

namespace troika {

void apply_gelu(CudaStream& stream, View<const float> x, View<float> y) {
  kernels::same_shape("gelu", x.shape(), y.shape());
  cuda::activate(Activation::gelu, x.data(), y.data(), y.count(), cuda::stream_of(stream));
}
void apply_gelu_tanh(CudaStream& stream, View<const float> x, View<float> y) {
  kernels::same_shape("gelu_tanh", x.shape(), y.shape());
  cuda::activate(Activation::gelu_tanh, x.data(), y.data(), y.count(), cuda::stream_of(stream));
}
void activate_multiply(CudaStream& stream, Activation activation, View<const float> gate, View<const float> up,
                       View<float> y) {
  kernels::same_shape("activate_multiply", gate.shape(), y.shape());
  kernels::same_shape("activate_multiply", up.shape(), y.shape());
  cuda::activate_multiply(activation, gate.data(), up.data(), y.data(), y.count(), cuda::stream_of(stream));
}
void apply_soft_cap(CudaStream& stream, float cap, View<const float> x, View<float> y) {
  kernels::same_shape("soft_cap", x.shape(), y.shape());
  kernels::check_soft_cap(cap);
  cuda::map(cuda::SoftCap{cap}, y.count(), cuda::stream_of(stream), y.data(), x.data());
}
void multiply(CudaStream& stream, float factor, View<const float> x, View<float> y) {
  kernels::same_shape("multiply", x.shape(), y.shape());
  cuda::map(cuda::Scale{factor}, y.count(), cuda::stream_of(stream), y.data(), x.data());
}
void add(CudaStream& stream, View<const float> a, View<const float> b, View<float> y) {
  kernels::same_shape("add", a.shape(), y.shape());
  kernels::same_shape("add", b.shape(), y.shape());
  cuda::map(cuda::Add{}, y.count(), cuda::stream_of(stream), y.data(), a.data(), b.data());
}

void add_products(CudaStream& stream, View<const float> x, View<float> y) {
  kernels::check_terms(x.shape(), y.shape());
  const std::int64_t terms = x.shape()[0];
  const auto term = [&](std::int64_t begin, std::int64_t end) { return x.rows(begin, end); };
  if (terms == 1) return copy(stream, x.reshaped(y.shape()), y);
  const auto half = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(terms - 1)));
  CudaTensor<float> rest(stream.device(), y.shape());
  add_products(stream, term(0, half), y);
  add_products(stream, term(half, terms), rest.view());
  add(stream, y, rest.view(), y);
}

}  // namespace troika
