// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <string_view>
#include <utility>

#include <troika/sync/dtensor.hpp>

namespace troika {

namespace detail {

// y = f(x), element by element. Works on whatever piece a rank holds, but not on a term of a sum:
// gelu of a sum is not the sum of gelus.
template <class Function>
struct Elementwise : Function {
  template <Placement P, Device D, class S>
  requires(!std::same_as<P, Partial>) DTensor<float, P, D>
  operator()(DTensor<float, P, D>&& x, S& stream) const {
    Function::apply(stream, std::as_const(x).local(), x.local());
    return std::move(x);
  }

  template <Placement P, Device D, class S>
  requires(!std::same_as<P, Partial> && !is_shard<P>) DTensor<float, P, D>
  operator()(const DTensor<float, P, D>& x, S& stream) const {
    Tensor<float, D> y(stream.device(), x.local().shape());
    Function::apply(stream, x.local(), y.view());
    return DTensor<float, P, D>(std::move(y));
  }
};

struct Gelu {
  static constexpr std::string_view name = "gelu";
  template <class S>
  static void apply(S& stream, View<const float> x, View<float> y) {
    apply_gelu(stream, x, y);
  }
};
struct GeluTanh {
  static constexpr std::string_view name = "gelu_tanh";
  template <class S>
  static void apply(S& stream, View<const float> x, View<float> y) {
    apply_gelu_tanh(stream, x, y);
  }
};

// A factor goes before or after a sum.
struct Scale {
  static constexpr std::string_view name = "scale";
  float factor;

  template <Placement P, Device D, class S>
  DTensor<float, P, D> operator()(DTensor<float, P, D>&& x, S& stream) const {
    if (factor != 1) multiply(stream, factor, std::as_const(x).local(), x.local());
    return std::move(x);
  }
};

struct SoftCap {
  static constexpr std::string_view name = "soft_cap";
  float cap;

  template <Placement P, Device D, class S>
  requires(!std::same_as<P, Partial>) DTensor<float, P, D>
  operator()(DTensor<float, P, D>&& x, S& stream) const {
    if (cap > 0) apply_soft_cap(stream, cap, std::as_const(x).local(), x.local());
    return std::move(x);
  }
};

}  // namespace detail

// Stages. gelu is the exact x * Phi(x); gelu_tanh its approximation, which GPT-2 and others were trained with.
inline constexpr detail::Elementwise<detail::Gelu> gelu{};
inline constexpr detail::Elementwise<detail::GeluTanh> gelu_tanh{};

// x * factor, and cap * tanh(x / cap), which keeps values below the cap; 0 is no cap.
inline detail::Scale scale(float factor) { return {factor}; }
inline detail::SoftCap soft_cap(float cap) { return {cap}; }

}  // namespace troika
