// SPDX-License-Identifier: Apache-2.0
#include <sstream>
#include <string>
#include <vector>

#include <support/catch.hpp>
#include <support/spmd.hpp>
#include <troika/layers/elementwise.hpp>
#include <troika/layers/linear.hpp>

using troika::DTensor;
using troika::HostDevice;
using troika::Replicate;
using troika::Shape;
using troika::Shard;
using troika::Tensor;

namespace {

DTensor<float, Replicate, HostDevice> filled(HostDevice& device, const Shape& shape, float value) {
  Tensor<float, HostDevice> local(device, shape);
  std::fill(local.span().begin(), local.span().end(), value);
  return DTensor<float, Replicate, HostDevice>(std::move(local));
}

}  // namespace

TEST_CASE("stages fold from left to right, with the stream or without") {
  const auto results = spmd(3, [](auto& pipeline) {
    using X = DTensor<float, Replicate, HostDevice>;
    const auto plus_one = [](X&& x, auto&) {
      const auto values = x.local().span();
      for (auto& v : values) v += 1;
      return std::move(x);
    };
    const auto twice = [](X&& x) {
      const auto values = x.local().span();
      for (auto& v : values) v *= 2;
      return std::move(x);
    };
    auto y = pipeline.run(filled(pipeline.device(), {2, 2}, 3), plus_one, twice, plus_one);
    return y.values()[3];
  });
  CHECK(results == std::vector<float>{9, 9, 9});
}

TEST_CASE("an lvalue input is only read") {
  const auto results = spmd(2, [](auto& pipeline) {
    const auto x = filled(pipeline.device(), {4, 3}, 1);
    const auto y = pipeline.run(x, troika::to<Shard<0>>, troika::gelu, troika::to<Replicate>);
    return std::pair(x.values()[0], y.values()[11]);
  });
  for (const auto& [before, after] : results) {
    CHECK(before == 1);
    CHECK(after == Catch::Approx(0.8413447461));  // gelu(1) = Phi(1)
  }
}

TEST_CASE("to<Shard> splits by the shares of the scheduler, or as the caller says") {
  const auto sizes = spmd(2, troika::StaticAllocation{{1.0, 3.0}}, [](auto& pipeline) {
    const auto x = filled(pipeline.device(), {8, 2}, 1);
    const auto by_shares = pipeline.run(x, troika::to<Shard<0>>);
    const std::int64_t by_hand[] = {7, 1};
    const auto said = pipeline.run(x, troika::to<Shard<0>>(troika::Partition::by_hand(8, by_hand)));
    return std::pair(by_shares.local().shape()[0], said.local().shape()[0]);
  });
  CHECK(sizes == std::vector<std::pair<std::int64_t, std::int64_t>>{{2, 7}, {6, 1}});
}

TEST_CASE("a residual adds what its stages give, in either placement") {
  for (const int world : test_worlds) {
    const auto results = spmd(world, [](auto& pipeline) {
      const auto x = filled(pipeline.device(), {6, 2}, 2);
      const auto y = pipeline.run(x, troika::residual(troika::to<Shard<0>>, troika::to<Replicate>));
      const auto z = pipeline.run(x, troika::to<Shard<0>>,
                                  troika::residual(troika::to<Replicate>, troika::to<Shard<0>>), troika::to<Replicate>);
      return y.values()[0] + z.values()[11];
    });
    for (const auto sum : results) CHECK(sum == 8);
  }
}

TEST_CASE("every stage and collective is on its track of the trace") {
  troika::Trace trace;
  {
    troika::TaskScheduler scheduler{troika::host_devices(2), troika::StaticAllocation{}, {.trace = &trace}};
    scheduler.run_on_every_device([&](auto& rank) {
      troika::Communication communication{rank, troika::Threads{}};
      troika::DataSync sync{communication};
      troika::Pipeline pipeline{scheduler, sync, communication};
      const auto x = filled(pipeline.device(), {2, 2}, 2);
      (void)pipeline.run(x, troika::gelu, troika::to<Shard<0>>, troika::to<Replicate>);
    });
  }
  std::ostringstream out;
  trace.write(out);
  CHECK_THAT(out.str(), Catch::Matchers::ContainsSubstring("\"tid\":1,\"name\":\"gelu\""));
  CHECK_THAT(out.str(), Catch::Matchers::ContainsSubstring("\"tid\":3,\"name\":\"gelu\""));
  CHECK_THAT(out.str(), Catch::Matchers::ContainsSubstring("\"tid\":4,\"name\":\"all_gather\""));
}

TEST_CASE("an exception in a stage reaches the caller unchanged and ends the other ranks") {
  struct Private {};
  CHECK_THROWS_AS(spmd(4,
                       [](auto& pipeline) {
                         const auto x = filled(pipeline.device(), {4, 2}, 2);
                         return pipeline
                             .run(
                                 x,
                                 [&](const auto& y) -> DTensor<float, Replicate, HostDevice> {
                                   if (pipeline.rank() == 2) throw Private{};
                                   return filled(pipeline.device(), y.shape(), 1);
                                 },
                                 troika::to<Shard<0>>, troika::to<Replicate>)
                             .values()[0];
                       }),
                  Private);
}
