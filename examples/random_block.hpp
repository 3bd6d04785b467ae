// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>

#include <troika/troika.hpp>

#include "numbers.hpp"

struct BlockShape {
  std::int64_t hidden, intermediate, heads, kv_heads;
  std::int64_t head_dim() const { return hidden / heads; }
};

// This rank's part of a decoder block with random weights: how a program builds one from matrices that it has.
template <class Pipeline>
troika::DecoderBlock<typename Pipeline::Device> random_block(Pipeline& pipeline, const BlockShape& shape) {
  using D = typename Pipeline::Device;
  const auto ones = [&] {
    troika::Tensor<float, D> weight(pipeline.device(), {shape.hidden});
    for (auto& value : weight.span()) value = 1;
    return troika::RmsNorm<D>(std::move(weight), 1e-5f, pipeline.rank());
  };
  const auto column = [&](std::int64_t outputs, unsigned seed, const troika::Partition& partition) {
    return troika::ColumnParallelLinear(pipeline, Numbers(outputs, shape.hidden, seed).view(), {}, partition);
  };
  const auto row = [&](std::int64_t inputs, unsigned seed, const troika::Partition& partition) {
    return troika::RowParallelLinear(pipeline, Numbers(shape.hidden, inputs, seed).view(), {}, partition);
  };
  const auto heads = troika::HeadSplit::make(pipeline.shares(), shape.heads, shape.kv_heads, shape.head_dim());
  const auto query = heads.query_features(), kv = heads.kv_features();
  const auto middle = pipeline.partition(shape.intermediate);
  return {ones(),
          {heads, column(query.extent(), 1, query), column(kv.extent(), 2, kv), column(kv.extent(), 3, kv),
           row(query.extent(), 4, query), pipeline.rank()},
          {},
          ones(),
          troika::GatedMlp<D>{{column(shape.intermediate, 5, middle), column(shape.intermediate, 6, middle)},
                              row(shape.intermediate, 7, middle)},
          {}};
}
