// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <utility>
#include <variant>

#include <troika/layers/attention.hpp>
#include <troika/layers/elementwise.hpp>
#include <troika/layers/experts.hpp>
#include <troika/layers/linear.hpp>
#include <troika/layers/norm.hpp>
#include <troika/layers/residual_norm.hpp>
#include <troika/pipeline.hpp>

namespace troika {

// A block has one of three MLPs, each Replicate -> Partial: a GatedMlp, Experts, or this.
template <Device D>
struct PlainMlp {
  ColumnParallelLinear<D> up;
  Activation activation = Activation::gelu;  // one of the gelus
  RowParallelLinear<D> down;
};

namespace detail {
// Two stages as one.
template <Device D>
struct UpGeluTanh {
  static constexpr std::string_view name = "column_parallel_linear, gelu_tanh";
  const ColumnParallelLinear<D>& up;

  template <class S>
  DTensor<float, Shard<1>, D> operator()(const DTensor<float, Replicate, D>& x, S& stream) const {
    return up.with_gelu_tanh(x, stream);
  }
  template <class Pipeline>
  DTensor<float, Shard<1>, D> gathered(Pipeline& pipeline,
                                       const DTensor<float, Shard<0>, D>& x) const requires HasSecondStream<D> {
    return up.gathered_with_gelu_tanh(pipeline, x);
  }
};

// then(last, before...) with the stages of an MLP.
template <Device D, class Then>
auto with_mlp(const GatedMlp<D>& mlp, Then&& then) {
  return then(mlp.down, mlp.gate_up);
}
template <Device D, class Then>
auto with_mlp(const PlainMlp<D>& mlp, Then&& then) {
  if (mlp.activation == Activation::gelu) return then(mlp.down, mlp.up, gelu);
  if constexpr (requires(typename D::Stream s, View<const float> x, View<float> y) {
                  linear_gelu_tanh(s, x, mlp.up.weight(), y);
                })
    return then(mlp.down, UpGeluTanh<D>{mlp.up});
  else
    return then(mlp.down, mlp.up, gelu_tanh);
}
template <Device D, class Then>
auto with_mlp(const Experts<D>& mlp, Then&& then) {
  return then(mlp);
}
}  // namespace detail

// A decoder block: norms before attention and MLP, in some models after them too. Two collectives, each an add_to, with
// the residual and the norm that come after it: where the transport can, they are one operation.
//
// The hidden state between blocks is Replicate (two all_reduces) or Shard<0>, each rank its tokens (sequence
// parallelism: a reduce_scatter and an all_gather in the place of each all_reduce, and the norms split too).
template <Device D>
struct DecoderBlock {
  Norm<D> attention_norm;
  Attention<D> attention;
  Norm<D> attention_post_norm;
  Norm<D> mlp_norm;
  std::variant<GatedMlp<D>, PlainMlp<D>, Experts<D>> mlp;
  Norm<D> mlp_post_norm;

  template <class Pipeline, HoldsWholeTokens Hidden>
  DTensor<float, Hidden, D> forward(Pipeline& pipeline, DTensor<float, Hidden, D> x,
                                    const AttentionContext<D>& context) const {
    auto state = begin(pipeline, std::move(x));
    forward(pipeline, state, context, Norm<D>());
    return std::move(state.hidden);
  }

  // For blocks in a row: x begins at the first of them, and `next` is the norm of the layer after this block.
  template <class Pipeline, HoldsWholeTokens Hidden>
  Normed<Hidden, D> begin(Pipeline& pipeline, DTensor<float, Hidden, D> x) const {
    auto normed = attention_norm(std::as_const(x), pipeline.stream());
    return {std::move(x), std::move(normed)};
  }
  template <class Pipeline, HoldsWholeTokens Hidden>
  void forward(Pipeline& pipeline, Normed<Hidden, D>& x, const AttentionContext<D>& context,
               const Norm<D>& next) const {
    add_to(pipeline, x, pipeline.run(std::move(x.normed), to<Replicate>, attention.with(context)), attention.output(),
           attention_post_norm, mlp_norm);
    const auto run = [&](const auto& last, const auto&... before) {
      add_to(pipeline, x, pipeline.run(std::move(x.normed), to<Replicate>, before...), last, mlp_post_norm, next);
    };
    std::visit([&](const auto& kind) { detail::with_mlp(kind, run); }, mlp);
  }
};

// An encoder block as BERT has it: norms after.
template <Device D>
struct EncoderBlock {
  Attention<D> attention;
  LayerNorm<D> attention_norm;
  std::variant<GatedMlp<D>, PlainMlp<D>> mlp;
  LayerNorm<D> mlp_norm;

  template <class Pipeline>
  DTensor<float, Replicate, D> forward(Pipeline& pipeline, DTensor<float, Replicate, D> x,
                                       const AttentionContext<D>& context) const {
    const auto run = [&](const auto& last, const auto&... before) {
      return pipeline.run(std::move(x), residual(attention.with(context), attention.output(), to<Replicate>),
                          attention_norm, same_replicas, residual(before..., last, to<Replicate>), mlp_norm,
                          same_replicas);
    };
    return std::visit([&](const auto& kind) { return detail::with_mlp(kind, run); }, mlp);
  }
};

}  // namespace troika
