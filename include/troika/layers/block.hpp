// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include <troika/layers/attention.hpp>
#include <troika/layers/elementwise.hpp>
#include <troika/layers/linear.hpp>
#include <troika/layers/norm.hpp>
#include <troika/pipeline.hpp>

namespace troika {

// A decoder block as Llama has it: norms before, a gated MLP. Two collectives, each a visible to<>.
//
// The hidden state between blocks is Replicate (two all_reduces) or Shard<0>, each rank its tokens (sequence parallelism:
// a reduce_scatter and an all_gather in the place of each all_reduce, and the norms split too).
template <Device D>
struct DecoderBlock {
  RmsNorm<D> attention_norm;
  Attention<D> attention;
  RmsNorm<D> mlp_norm;
  GatedColumnParallelLinear<D> gate_up;
  RowParallelLinear<D> down;

  template <class Pipeline, HoldsWholeTokens Hidden>
  DTensor<float, Hidden, D> forward(Pipeline& pipeline, DTensor<float, Hidden, D> x,
                                    const AttentionContext<D>& context) const {
    return pipeline.run(std::move(x),
                        residual(attention_norm, to<Replicate>, attention.with(context), to<Hidden>),
                        residual(mlp_norm, to<Replicate>, gate_up, down, to<Hidden>));
  }
};

// An encoder block as BERT has it: norms after, a GELU MLP, biases everywhere.
template <Device D>
struct EncoderBlock {
  Attention<D> attention;
  LayerNorm<D> attention_norm;
  ColumnParallelLinear<D> up;
  RowParallelLinear<D> down;
  LayerNorm<D> mlp_norm;
  bool approximate_gelu = false;  // gelu_tanh

  template <class Pipeline>
  DTensor<float, Replicate, D> forward(Pipeline& pipeline, DTensor<float, Replicate, D> x,
                                       const AttentionContext<D>& context) const {
    const auto run = [&](const auto& activation) {
      return pipeline.run(std::move(x),
                          residual(attention.with(context), to<Replicate>), attention_norm,
                          residual(up, activation, down, to<Replicate>), mlp_norm);
    };
    return approximate_gelu ? run(gelu_tanh) : run(gelu);
  }
};

}  // namespace troika
