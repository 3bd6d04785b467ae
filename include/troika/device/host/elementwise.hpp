// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>

#include <troika/core/activation.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/checks.hpp>
#include <troika/device/host/cpu_features.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/kernels.hpp>

// One float in, one float out, within 1e-6 of the exact value, relative to it (gelu_tanh: also to what rounding does to
// its argument). y may be an input. NaN and infinities give what the formula gives.
namespace troika {

namespace kernels {

inline constexpr std::int64_t elementwise_grain = 16384;  // floats that are worth another thread

template <class Op, class E>
void map(HostStream& stream, View<const float> x, View<float> y) {
  parallel_for(stream.device().team(), y.count(), elementwise_grain, [&](std::int64_t begin, std::int64_t end) {
    E::template map<Op>(x.data() + begin, y.data() + begin, end - begin);
  });
}
template <class Op, class E>
void map(HostStream& stream, View<const float> a, View<const float> b, View<float> y) {
  parallel_for(stream.device().team(), y.count(), elementwise_grain, [&](std::int64_t begin, std::int64_t end) {
    E::template map<Op>(a.data() + begin, b.data() + begin, y.data() + begin, end - begin);
  });
}

// y = the tree over terms that lie `step` apart, of up to `most_terms_at_once` floats each.
inline constexpr std::int64_t most_terms_at_once = 1024;
template <class E>
void add_tree(const float* x, std::int64_t step, std::int64_t terms, std::int64_t count, float* y) {
  if (terms == 1) {
    std::copy_n(x, count, y);
  } else if (terms == 2) {
    E::template map<typename E::Add>(x, x + step, y, count);
  } else {
    const auto half = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(terms - 1)));
    float rest[most_terms_at_once];
    add_tree<E>(x, step, half, count, y);
    add_tree<E>(x + half * step, step, terms - half, count, rest);
    E::template map<typename E::Add>(y, rest, y, count);
  }
}

}  // namespace kernels

// x/2 (1 + erf(x / sqrt 2))
inline void apply_gelu(HostStream& stream, View<const float> x, View<float> y, CpuLevel level = cpu_level()) {
  kernels::same_shape("gelu", x.shape(), y.shape());
  kernels::at_level<kernels::Elementwise>(level, [&]<class E>(E) { kernels::map<typename E::Gelu, E>(stream, x, y); });
}

// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
inline void apply_gelu_tanh(HostStream& stream, View<const float> x, View<float> y, CpuLevel level = cpu_level()) {
  kernels::same_shape("gelu_tanh", x.shape(), y.shape());
  kernels::at_level<kernels::Elementwise>(level,
                                          [&]<class E>(E) { kernels::map<typename E::GeluTanh, E>(stream, x, y); });
}

// activation(gate) * up
inline void activate_multiply(HostStream& stream, Activation activation, View<const float> gate, View<const float> up,
                              View<float> y, CpuLevel level = cpu_level()) {
  kernels::same_shape("activate_multiply", gate.shape(), y.shape());
  kernels::same_shape("activate_multiply", up.shape(), y.shape());
  kernels::at_level<kernels::Elementwise>(level, [&]<class E>(E) {
    switch (activation) {
      case Activation::silu: return kernels::map<typename E::SiluMultiply, E>(stream, gate, up, y);
      case Activation::gelu: return kernels::map<typename E::GeluMultiply, E>(stream, gate, up, y);
      case Activation::gelu_tanh: return kernels::map<typename E::GeluTanhMultiply, E>(stream, gate, up, y);
    }
  });
}

// cap tanh(x / cap): x where it is small, and never beyond the cap.
inline void apply_soft_cap(HostStream& stream, float cap, View<const float> x, View<float> y,
                           CpuLevel level = cpu_level()) {
  kernels::same_shape("soft_cap", x.shape(), y.shape());
  kernels::check_soft_cap(cap);
  kernels::at_level<kernels::Elementwise>(level, [&]<class E>(E) {
    parallel_for(stream.device().team(), y.count(), kernels::elementwise_grain,
                 [&](std::int64_t begin, std::int64_t end) {
                   E::soft_cap(x.data() + begin, cap, y.data() + begin, end - begin);
                 });
  });
}

// x * factor
inline void multiply(HostStream& stream, float factor, View<const float> x, View<float> y,
                     CpuLevel level = cpu_level()) {
  kernels::same_shape("multiply", x.shape(), y.shape());
  kernels::at_level<kernels::Rows>(level, [&]<class R>(R) {
    parallel_for(stream.device().team(), y.count(), kernels::elementwise_grain,
                 [&](std::int64_t begin, std::int64_t end) {
                   R::multiply(x.data() + begin, factor, y.data() + begin, end - begin);
                 });
  });
}

inline void add(HostStream& stream, View<const float> a, View<const float> b, View<float> y,
                CpuLevel level = cpu_level()) {
  kernels::same_shape("add", a.shape(), y.shape());
  kernels::same_shape("add", b.shape(), y.shape());
  kernels::at_level<kernels::Elementwise>(level,
                                          [&]<class E>(E) { kernels::map<typename E::Add, E>(stream, a, b, y); });
}

// y = the sum of all x[i], x (terms, shape of y...), as the binary tree by which reductions add
// (communication/reduce.hpp).
inline void add_products(HostStream& stream, View<const float> x, View<float> y, CpuLevel level = cpu_level()) {
  const std::int64_t terms = x.shape()[0], count = y.count();
  kernels::check_terms(x.shape(), y.shape());
  kernels::at_level<kernels::Elementwise>(level, [&]<class E>(E) {
    parallel_for(stream.device().team(), count, kernels::elementwise_grain / 8,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin; i < end; i += kernels::most_terms_at_once) {
                     const std::int64_t some = std::min(kernels::most_terms_at_once, end - i);
                     kernels::add_tree<E>(x.data() + i, count, terms, some, y.data() + i);
                   }
                 });
  });
}

}  // namespace troika
