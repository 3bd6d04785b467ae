// SPDX-License-Identifier: Apache-2.0
#include <troika/layers/block.hpp>

#include <cstdint>
#include <utility>
#include <vector>

#include <troika/communication/peer.hpp>
#include <troika/device/cuda/cuda.hpp>
#include <troika/troika.hpp>

#include "on_gpu.hpp"
#include "pipelines.hpp"
#include "support/catch.hpp"

using namespace troika;
using namespace troika::test;
using recording::Recording;

namespace {

constexpr std::int64_t tokens = 20, hidden = 48, middle = 80;

// With the MLP of Llama, or with that of GPT-2.
enum class Mlp { gated, plain };

template <class Pipeline, class D = typename Pipeline::Device>
DecoderBlock<D> make_block(Pipeline& pipeline, Mlp mlp) {
  const auto norm = [&] {
    const Values weights(static_cast<std::size_t>(hidden), 0.7f);
    Tensor<float, D> weight(pipeline.device(), {hidden});
    upload(pipeline.stream(), View<const float>(weights.data(), {hidden}), weight.view());
    return RmsNorm<D>(std::move(weight), 1e-5f, pipeline.rank());
  };
  const auto column = [&](int seed, const Partition& part) {
    return ColumnParallelLinear(pipeline, matrix(numbers(part.extent() * hidden, seed), hidden), {}, part);
  };
  const auto row = [&](int seed, const Partition& part) {
    return RowParallelLinear(pipeline, matrix(numbers(hidden * part.extent(), seed), part.extent()), {}, part);
  };
  const auto heads = HeadSplit::make(pipeline.shares(), 8, 4, 6);
  const auto query = heads.query_features(), kv = heads.kv_features(), inner = pipeline.partition(middle);
  DecoderBlock<D> block{norm(),
                        {heads, column(1, query), column(2, kv), column(3, kv), row(4, query), pipeline.rank()},
                        {},
                        norm(),
                        GatedMlp<D>{{column(5, inner), column(6, inner)}, row(7, inner)},
                        {}};
  if (mlp == Mlp::plain) block.mlp = PlainMlp<D>{column(5, inner), Activation::gelu_tanh, row(7, inner)};
  return block;
}

// A block whose hidden state is whole on each rank, and then one whose rows are split.
template <class Pipeline>
Values two_blocks(Pipeline& pipeline, Mlp mlp) {
  using D = typename Pipeline::Device;
  const auto block = make_block(pipeline, mlp);
  std::vector<std::int32_t> positions;
  for (std::int32_t i = 0; i < tokens; ++i) positions.push_back(i);
  const AttentionContext<D> context{.positions = positions};
  auto y = block.forward(pipeline, pipeline.replicate(matrix(numbers(tokens * hidden, 9), hidden)), context);
  auto z = pipeline.run(block.forward(pipeline, pipeline.run(y, to<Shard<0>>), context), to<Replicate>);
  pipeline.sync().verify(y, pipeline.stream(), "hidden state");
  pipeline.sync().verify(z, pipeline.stream(), "hidden state");
  auto both = values_of(pipeline, y);
  const auto more = values_of(pipeline, z);
  both.insert(both.end(), more.begin(), more.end());
  return both;
}

template <class Transport>
void check_blocks(Mlp mlp, int ranks, const StaticAllocation& shares, const Transport& transport) {
  INFO(ranks << " ranks, " << (mlp == Mlp::gated ? "gated" : "plain"));
  const auto run = [mlp](auto& pipeline) { return two_blocks(pipeline, mlp); };
  const auto on_host = *try_pipelines(host_devices(1, {.precision = Precision::exact}), {}, Threads{}, run)[0].value;
  const auto on_gpus = [&](std::int64_t overlap_rows) {
    const Recording recorded({.gpus = ranks});
    Values first;
    for (const auto& outcome : try_pipelines(devices(ranks, false, overlap_rows), shares, transport, run)) {
      REQUIRE(outcome.what() == "");
      CHECK(distance(*outcome.value, on_host) < 1e-4);
      first = *outcome.value;
    }
    CHECK(joined(recorded.problems()) == "");
    CHECK(joined(recorded.live()) == "");
    return first;
  };
  CHECK(on_gpus(7) == on_gpus(0));
}

}  // namespace

TEST_CASE("blocks whose sums and gathers go beside products have the bits of those that wait for each") {
  for (const auto mlp : {Mlp::gated, Mlp::plain}) {
    check_blocks(mlp, 1, {}, Peer{});
    check_blocks(mlp, 2, StaticAllocation{{3, 1}}, Peer{});
    check_blocks(mlp, 3, {}, Threads{});
    check_blocks(mlp, 3, {}, Peer{});
  }
}
