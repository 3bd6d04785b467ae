// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/reference_model.hpp>

#include <troika/device/cuda/cuda.hpp>
#include <troika/troika.hpp>

#include "mixed_ranks.hpp"

// Also run on real GPUs (tests/gpu).
using namespace troika::test;
using troika::Error;
using troika::Partition;
using troika::Replicate;
using troika::Tensor;
using troika::to;
using troika::View;
using troika::recording::Recording;

namespace {

// A block that has norms after attention and MLP, too.
template <class Pipeline, class D = typename Pipeline::Device>
troika::DecoderBlock<D> normed_block(Pipeline& pipeline, std::int64_t hidden, std::int64_t inner) {
  const auto norm = [&] {
    const auto ones = Values(static_cast<std::size_t>(hidden), 0.7f);
    Tensor<float, D> weight(pipeline.device(), {hidden});
    upload(pipeline.stream(), View<const float>(ones.data(), {hidden}), weight.view());
    return troika::RmsNorm<D>(std::move(weight), 1e-5f, pipeline.rank());
  };
  const auto column = [&](std::uint32_t seed, const Partition& part) {
    return troika::ColumnParallelLinear(pipeline, matrix(numbers(part.extent() * hidden, seed), hidden), {}, part);
  };
  const auto row = [&](std::uint32_t seed, const Partition& part) {
    return troika::RowParallelLinear(pipeline, matrix(numbers(hidden * part.extent(), seed), part.extent()), {}, part);
  };
  const auto heads = troika::HeadSplit::make(pipeline.shares(), 8, 4, 6);
  const auto query = heads.query_features(), kv = heads.kv_features();
  const auto middle = pipeline.partition(inner);
  return {norm(),
          {heads, column(1, query), column(2, kv), column(3, kv), row(4, query), pipeline.rank()},
          norm(),
          norm(),
          troika::GatedMlp<D>{{column(5, middle), column(6, middle)}, row(7, middle)},
          norm()};
}

}  // namespace

TEST_CASE("two products split over GPUs and groups of cores are those of long arithmetic") {
  constexpr std::int64_t rows = 5, width = 24, inner = 60;
  const auto x = numbers(rows * width, 1), up = numbers(inner * width, 2), down = numbers(width * inner, 3);
  const auto at = [](const Values& values, std::int64_t row, std::int64_t of, std::int64_t i) {
    return double{values[static_cast<std::size_t>(row * of + i)]};
  };
  std::vector<double> expected;
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t out = 0; out < width; ++out) {
      double sum = 0;
      for (std::int64_t i = 0; i < inner; ++i)
        for (std::int64_t j = 0; j < width; ++j)
          sum += at(x, r, width, j) * at(up, i, width, j) * at(down, out, inner, i);
      expected.push_back(sum);
    }
  const auto products = [&](auto& pipeline) {
    const troika::ColumnParallelLinear first(pipeline, matrix(up, width));
    const troika::RowParallelLinear second(pipeline, matrix(down, inner));
    const auto y = pipeline.run(pipeline.replicate(matrix(x, width)), first, second, to<Replicate>);
    pipeline.sync().verify(y, pipeline.stream());  // the same bits everywhere
    return values_of<float>(pipeline, y);
  };
  for (const auto& mix : mixes) on_mix(mix, products, [&](const Values& y) { CHECK(distance(y, expected) < 1e-6); });
}

TEST_CASE("a block gives the same bits to GPUs and groups of cores, also where each rank takes norms for itself") {
  constexpr std::int64_t tokens = 7, hidden = 48;
  const auto x = numbers(tokens * hidden, 9);
  const std::vector<std::int32_t> positions{0, 1, 2, 3, 4, 5, 6};
  const auto forward = [&](auto& pipeline) {
    using D = typename std::remove_cvref_t<decltype(pipeline)>::Device;
    const auto block = normed_block(pipeline, hidden, 80);
    const troika::AttentionContext<D> context{.positions = positions};
    const auto y = block.forward(pipeline, pipeline.replicate(matrix(x, hidden)), context);
    pipeline.sync().verify(y, pipeline.stream(), "hidden state");
    return values_of<float>(pipeline, y);
  };
  const auto once = on_host(forward);
  const std::vector<double> expected(once.begin(), once.end());
  for (const auto& mix : mixes) on_mix(mix, forward, [&](const Values& y) { CHECK(distance(y, expected) < 1e-5); });
}

TEST_CASE("GPUs and groups of cores choose the same experts where rounding decides") {
  // The scores of both experts are sums of the same products, in one order and the other.
  constexpr std::int64_t tokens = 200, hidden = 64, inner = 16;
  auto x = numbers(tokens * hidden, 1), row = numbers(hidden, 2);
  for (std::int64_t t = 0; t < tokens; ++t)
    std::copy_n(x.begin() + t * hidden, hidden / 2, std::make_reverse_iterator(x.begin() + (t + 1) * hidden));
  auto router = row;
  router.insert(router.end(), row.rbegin(), row.rend());
  const auto route = [&](auto& pipeline) {
    using D = typename std::remove_cvref_t<decltype(pipeline)>::Device;
    troika::Weight<D> weight(pipeline.device(), troika::DType::f32, {2, hidden});
    upload(pipeline.stream(), matrix(router, hidden),
           View<float>(reinterpret_cast<float*>(weight.data()), weight.shape()));
    // What each rank adds is the rank's part of the inner features, all of them alike: an expert adds 1 or 100 for each.
    const auto expert = [&](float value) -> troika::GatedMlp<D> {
      const Values none(inner * hidden, 0), some(hidden * inner, value), ones(inner, 1);
      const auto part = pipeline.partition(inner);
      return {{troika::ColumnParallelLinear(pipeline, matrix(none, hidden), ones, part),
               troika::ColumnParallelLinear(pipeline, matrix(none, hidden), ones, part)},
              troika::RowParallelLinear(pipeline, matrix(some, inner), {}, part)};
    };
    std::vector<troika::GatedMlp<D>> experts;
    for (const float value : {1.0f, 100.0f}) experts.push_back(expert(value));
    const troika::Experts<D> mixture(std::move(weight), std::move(experts), 1, true);
    return values_of<float>(pipeline, pipeline.run(pipeline.replicate(matrix(x, hidden)), mixture, to<Replicate>));
  };
  const float one = 16 / (1 + std::exp(-1.0f));  // silu(1), 16 times
  on_mix({1, 1}, route, [&](const Values& y) {
    const auto of_one = [&](float value) {
      return std::abs(value / one - 1) < 1e-3f || std::abs(value / one - 100) < 1e-1f;
    };
    CHECK(std::ranges::all_of(y, of_one));
  });
}

TEST_CASE("a rank that throws is named by the rank of the other kind") {
  for (const int failing : {0, 1}) {
    const Mix mix{1, 1};
    const Recording recording(mix.options());
    std::optional<Error> told;
    const auto work = [&](auto& pipeline) {
      auto x = pipeline.replicate(matrix(numbers(40'000, 1), 200));
      pipeline.communication().all_reduce(x.local().span());
      if (pipeline.rank() == failing) throw std::runtime_error("the device is broken");
      try {
        pipeline.communication().all_reduce(x.local().span());
      } catch (const Error& error) {
        told = error;
      }
    };
    CHECK_THROWS_WITH(on_every(mix.devices(), {}, work), "the device is broken");
    REQUIRE(told);
    CHECK(told->fault() == troika::Fault::peer_failed);
    CHECK(told->rank() == failing);
    CHECK(recording.problems().empty());
    CHECK(recording.live().empty());
  }
}

TEST_CASE("a rank that does not come is named by the deadline by the rank of the other kind") {
  for (const int silent : {0, 1}) {
    const Mix mix{1, 1};
    const Recording recording(mix.options());
    std::optional<Error> told;
    std::atomic<bool> over = false;
    const auto work = [&](auto& pipeline) {
      auto x = pipeline.replicate(matrix(numbers(400, 1), 20));
      if (pipeline.rank() == silent) return over.wait(false);
      try {
        pipeline.communication().all_reduce(x.local().span());
      } catch (const Error& error) {
        told = error;
      }
      over = true;
      over.notify_all();
    };
    on_every(mix.devices(), {}, work, {.deadline = std::chrono::seconds(4)});
    REQUIRE(told);
    CHECK(told->fault() == troika::Fault::timeout);
    CHECK(told->rank() == silent);
    CHECK(recording.live().empty());
  }
}

TEST_CASE("shares follow the speed that is measured on devices of each kind") {
  const Mix mix{1, 2};
  const Recording recording(mix.options());
  troika::TaskScheduler scheduler{mix.devices(), troika::DynamicAllocation{}};
  measure_speeds(scheduler, {.outputs = 64, .inputs = 256, .time = std::chrono::milliseconds(1)});
  const auto loads = scheduler.loads();
  const auto shares = scheduler.shares();
  REQUIRE(loads.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(loads[i].speed > 0);
    const double even = (loads[0].speed + loads[1].speed + loads[2].speed) / 3;
    CHECK(shares[i] == Catch::Approx(std::max(loads[i].speed, 0.02 * even) / (3 * even)));
  }
  CHECK(recording.problems().empty());
}

TEST_CASE("tasks go to devices of each kind, and a list of GPUs may be empty") {
  const Mix mix{1, 1};
  const Recording recording(mix.options());
  troika::TaskScheduler scheduler{mix.devices(), troika::RoundRobin{}};
  const auto name = [](auto& device) { return device.name(); };
  CHECK(scheduler.submit(name).get() == "cuda:0");
  CHECK(scheduler.submit(name).get() == "host:0");
  CHECK(scheduler.device(1).name() == "host:0");

  troika::TaskScheduler cores{troika::mixed_devices(std::vector<troika::CudaDevice>(), troika::host_devices(2)),
                              troika::StaticAllocation{}};
  CHECK(cores.run_on_every_device([](auto& rank) { return rank.world_size(); }) == std::vector<int>{2, 2});
}
