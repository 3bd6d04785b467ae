// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <span>
#include <string_view>
#include <utility>
#include <variant>

#include <troika/sync/dtensor.hpp>

namespace troika {

// Norms over the features of each token: on all tokens (Replicate), or on this rank's tokens (Shard<0>, sequence
// parallelism, arXiv 2205.05198). Not on Partial or Shard<1>: a norm needs all features of a token, summed.
template <class P>
concept HoldsWholeTokens = std::same_as<P, Replicate> || std::same_as<P, Shard<0>>;

namespace detail {
// A tensor placed like x, with other values.
template <Placement P, Device D>
DTensor<float, P, D> placed_like(const DTensor<float, P, D>& x, Tensor<float, D> local, int rank) {
  if constexpr (is_shard<P>)
    return {std::move(local), x.partition(), rank};
  else
    return DTensor<float, P, D>(std::move(local));
}
}  // namespace detail

template <Device D>
class RmsNorm {
 public:
  static constexpr std::string_view name = "rms_norm";

  RmsNorm() = default;
  // weight: (features)
  RmsNorm(Tensor<float, D> weight, float eps, int rank) : weight_(std::move(weight)), eps_(eps), rank_(rank) {}

  template <HoldsWholeTokens P, class S>
  DTensor<float, P, D> operator()(const DTensor<float, P, D>& x, S& stream) const {
    Tensor<float, D> y(stream.device(), x.local().shape());
    rms_norm(stream, x.local(), weight_.span(), eps_, y.view());
    return detail::placed_like(x, std::move(y), rank_);
  }

  std::span<const float> weight() const { return weight_.span(); }
  float eps() const { return eps_; }

 private:
  Tensor<float, D> weight_;
  float eps_ = 1e-6f;
  int rank_ = 0;
};

template <Device D>
class LayerNorm {
 public:
  static constexpr std::string_view name = "layer_norm";

  LayerNorm() = default;
  // weight, bias: (features)
  LayerNorm(Tensor<float, D> weight, Tensor<float, D> bias, float eps, int rank)
      : weight_(std::move(weight)), bias_(std::move(bias)), eps_(eps), rank_(rank) {}

  template <HoldsWholeTokens P, class S>
  DTensor<float, P, D> operator()(const DTensor<float, P, D>& x, S& stream) const {
    Tensor<float, D> y(stream.device(), x.local().shape());
    layer_norm(stream, x.local(), weight_.span(), bias_.span(), eps_, y.view());
    return detail::placed_like(x, std::move(y), rank_);
  }

 private:
  Tensor<float, D> weight_, bias_;
  float eps_ = 1e-5f;
  int rank_ = 0;
};

// Either of the two, or none, which gives back what it is handed: for models whose file says what they have.
template <Device D>
class Norm {
 public:
  static constexpr std::string_view name = "norm";

  Norm() = default;
  Norm(RmsNorm<D> norm) : norm_(std::move(norm)) {}
  Norm(LayerNorm<D> norm) : norm_(std::move(norm)) {}

  bool empty() const { return std::holds_alternative<std::monostate>(norm_); }

  template <HoldsWholeTokens P, class S>
  DTensor<float, P, D> operator()(const DTensor<float, P, D>& x, S& stream) const {
    if (const auto* rms = std::get_if<RmsNorm<D>>(&norm_)) return (*rms)(x, stream);
    return std::get<LayerNorm<D>>(norm_)(x, stream);
  }
  template <HoldsWholeTokens P, class S>
  DTensor<float, P, D> operator()(DTensor<float, P, D>&& x, S& stream) const {
    if (empty()) return std::move(x);
    return (*this)(std::as_const(x), stream);
  }

  const RmsNorm<D>* rms() const { return std::get_if<RmsNorm<D>>(&norm_); }

 private:
  std::variant<std::monostate, RmsNorm<D>, LayerNorm<D>> norm_;
};

}  // namespace troika
