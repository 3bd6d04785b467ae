// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>
#include <variant>

#include <troika/layers/attention.hpp>
#include <troika/layers/elementwise.hpp>
#include <troika/layers/experts.hpp>
#include <troika/layers/linear.hpp>
#include <troika/layers/norm.hpp>
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
// then(stages...) with the stages of an MLP.
template <Device D, class Then>
auto with_mlp(const GatedMlp<D>& mlp, Then&& then) {
  return then(mlp.gate_up, mlp.down);
}
template <Device D, class Then>
auto with_mlp(const PlainMlp<D>& mlp, Then&& then) {
  return mlp.activation == Activation::gelu_tanh ? then(mlp.up, gelu_tanh, mlp.down) : then(mlp.up, gelu, mlp.down);
}
template <Device D, class Then>
auto with_mlp(const Experts<D>& mlp, Then&& then) {
  return then(mlp);
}
}  // namespace detail

// A decoder block: norms before attention and MLP, in some models after them too. Two collectives, each a visible to<>.
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
    x = pipeline.run(std::move(x), residual(attention_norm, to<Replicate>, attention.with(context), to<Hidden>,
                                            attention_post_norm, SameReplicas{!attention_post_norm.empty()}));
    const auto run = [&](const auto&... stages) {
      return pipeline.run(std::move(x), residual(mlp_norm, to<Replicate>, stages..., to<Hidden>, mlp_post_norm,
                                                 SameReplicas{!mlp_post_norm.empty()}));
    };
    return std::visit([&](const auto& kind) { return detail::with_mlp(kind, run); }, mlp);
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
    const auto run = [&](const auto&... stages) {
      return pipeline.run(std::move(x), residual(attention.with(context), to<Replicate>), attention_norm, same_replicas,
                          residual(stages..., to<Replicate>), mlp_norm, same_replicas);
    };
    return std::visit([&](const auto& kind) { return detail::with_mlp(kind, run); }, mlp);
  }
};

}  // namespace troika
