// SPDX-License-Identifier: Apache-2.0
#include <troika/layers/residual_norm.hpp>

#include <cstdint>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/spmd.hpp>

using namespace troika;

namespace {

constexpr std::int64_t tokens = 6, features = 40;

HostTensor<float> values(HostDevice& device, Shape shape, int seed) {
  HostTensor<float> result(device, shape);
  int i = 0;
  for (float& value : result.span()) value = static_cast<float>((37 * i++ + 71 * seed) % 101) / 7 - 6;
  return result;
}
Norm<HostDevice> rms_norm_of(HostDevice& device, int rank, int seed) {
  return RmsNorm<HostDevice>(values(device, {features}, seed), 1e-5f, rank);
}
Norm<HostDevice> layer_norm_of(HostDevice& device, int rank, int seed) {
  return LayerNorm<HostDevice>(values(device, {features}, seed), values(device, {features}, seed + 1), 1e-5f, rank);
}

// What add_to makes of a hidden state placed as P and a sum, and what the stages make of them one after the other.
template <Placement P>
void check(const Norm<HostDevice>& post, const Norm<HostDevice>& next, TestPipeline& pipeline, bool& same) {
  const auto hidden = [&] {
    return pipeline.run(DTensor<float, Replicate, HostDevice>(values(pipeline.device(), {tokens, features}, 1)), to<P>);
  };
  const auto term = [&] {
    return DTensor<float, Partial, HostDevice>(values(pipeline.device(), {tokens, features}, 2 + pipeline.rank()));
  };
  const auto whole = [&](DTensor<float, P, HostDevice> x) {
    const auto all = pipeline.run(std::move(x), to<Replicate>);
    return std::vector<float>(all.values().begin(), all.values().end());
  };
  Normed<P, HostDevice> x{hidden(), hidden()};
  add_to(pipeline, x, term(), post, next);

  auto expected = hidden();
  const auto sum = pipeline.run(term(), to<P>, post);
  add(pipeline.stream(), std::as_const(expected).local(), sum.local(), expected.local());
  if (!next.empty())
    same = same && whole(std::move(x.normed)) == whole(next(std::as_const(expected), pipeline.stream()));
  same = same && whole(std::move(x.hidden)) == whole(std::move(expected));
}

}  // namespace

TEST_CASE("a layer's answer is added and normed with the bits of the stages one after the other") {
  for (const int world : {1, 2, 3, 5}) {
    const auto same = spmd(world, [](TestPipeline& pipeline) {
      auto& device = pipeline.device();
      const Norm<HostDevice> none, rms = rms_norm_of(device, pipeline.rank(), 20);
      const auto other = rms_norm_of(device, pipeline.rank(), 21), layer = layer_norm_of(device, pipeline.rank(), 22);
      bool all = true;
      for (const auto* post : {&none, &other, &layer}) {
        for (const auto* next : {&none, &rms, &layer}) {
          check<Replicate>(*post, *next, pipeline, all);
          check<Shard<0>>(*post, *next, pipeline, all);
        }
      }
      return static_cast<int>(all);
    });
    CAPTURE(world);
    for (const int each : same) CHECK(each == 1);
  }
}
