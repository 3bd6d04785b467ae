// SPDX-License-Identifier: Apache-2.0
#include <troika/layers/overlap.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/fastest.hpp>
#include <troika/communication/nccl.hpp>
#include <troika/communication/peer.hpp>
#include <troika/device/cuda/cuda.hpp>
#include <troika/troika.hpp>

#include "on_gpu.hpp"
#include "pipelines.hpp"
#include "runtime/nccl_recorder.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;
using namespace std::chrono_literals;
using recording::Recording;
using recording::When;
using Order = shim::Schedule::Order;

namespace {

void check_clean(const Recording& recorded) {
  CHECK(joined(recorded_nccl::violations()) == "");
  CHECK(recorded_nccl::alive() == 0);
  CHECK(joined(recorded.problems()) == "");
  CHECK(joined(recorded.live()) == "");
}

constexpr std::int64_t width = 24, inner = 40;

// Two MLPs, of which the second has its rows split over the ranks. What comes out of both, one after the other.
template <class Pipeline>
Values two_mlps(Pipeline& pipeline, std::int64_t rows) {
  const auto x = numbers(rows * width, 1), bias = numbers(width, 8);
  const ColumnParallelLinear gate(pipeline, matrix(numbers(inner * width, 2), width));
  const ColumnParallelLinear up(pipeline, matrix(numbers(inner * width, 3), width), numbers(inner, 4));
  const RowParallelLinear down(pipeline, matrix(numbers(width * inner, 5), inner), bias);
  using D = typename Pipeline::Device;
  const GatedColumnParallelLinear<D> gated({pipeline, matrix(numbers(inner * width, 2), width)},
                                           {pipeline, matrix(numbers(inner * width, 6), width)});
  const auto values = [&](const DTensor<float, Replicate, D>& y) {
    pipeline.sync().verify(y, pipeline.stream());  // the same bits everywhere
    return values_of(pipeline, y);
  };
  const auto first = pipeline.run(pipeline.replicate(matrix(x, width)), up, gelu, down, to<Replicate>);
  const auto second = pipeline.run(first, to<Shard<0>>, to<Replicate>, gated, down, to<Shard<0>>, to<Replicate>, up,
                                   down, to<Shard<0>>, to<Replicate>);
  auto both = values(first);
  const auto more = values(second);
  both.insert(both.end(), more.begin(), more.end());
  return both;
}

Values on_one_host(std::int64_t rows) {
  const auto f = [&](auto& pipeline) { return two_mlps(pipeline, rows); };
  return *try_pipelines(host_devices(1, {.precision = Precision::exact}), {}, Threads{}, f)[0].value;
}

struct Ranks {
  int count;
  bool shared;
  StaticAllocation shares{};
};

// In parts of 8 rows there are the bits of the whole, and the numbers of the host.
template <class Transport>
void check_parts(const Ranks& ranks, const Transport& transport, recording::Options options = {}) {
  constexpr std::int64_t rows = 37;
  options.gpus = ranks.shared ? 1 : ranks.count;
  INFO(ranks.count << " ranks");
  const auto expected = on_one_host(rows);
  const auto run = [&](std::int64_t overlap_rows) {
    recorded_nccl::reset();
    const Recording recorded(options);
    Values of_first;
    for (const auto& outcome : try_pipelines(devices(ranks.count, ranks.shared, overlap_rows), ranks.shares, transport,
                                             [&](auto& pipeline) { return two_mlps(pipeline, rows); })) {
      CHECK(outcome.what() == "");
      if (!outcome.value) continue;
      CHECK(distance(*outcome.value, expected) < 1e-5);
      of_first = *outcome.value;
    }
    check_clean(recorded);
    return of_first;
  };
  const auto whole = run(0);
  CHECK(run(8) == whole);
}

}  // namespace

TEST_CASE("sums and gathers beside products have the bits of those after and before them, by every transport",
          "[overlap]") {
  const Ranks all[] = {{1, false}, {2, false, StaticAllocation{{3, 1}}},
                       {3, false}, {4, true, StaticAllocation{{2, 0, 1, 1}}},
                       {5, true},  {8, true}};
  std::uint64_t seed = 0;
  for (const auto& ranks : all) {
    const recording::Options options{.when = seed % 2 ? When::early : When::late, .schedule = {Order::random, ++seed}};
    check_parts(ranks, Peer({.staged_bytes = 16384, .one_shot_bytes = 512}), options);
    check_parts(ranks, Threads{}, options);
  }
  check_parts({2, false}, Nccl{});
  check_parts({3, false, StaticAllocation{{1, 2, 2}}}, Nccl{}, {.when = When::early});
  check_parts({3, false}, Fastest({.choice = FastestChoice::only(Way::nccl)}));
  check_parts({2, true}, Fastest({.choice = FastestChoice::only(Way::host)}));
}

TEST_CASE("products are timed once for each kind and size, and all ranks do then the same", "[overlap]") {
  const auto [ranks, shared] = GENERATE(table<int, bool>({{1, false}, {3, false}, {2, true}}));
  const Recording recorded({.gpus = shared ? 1 : ranks});
  const auto outcomes = try_pipelines(devices(ranks, shared, {}), StaticAllocation{}, Peer{}, [&](auto& pipeline) {
    const RowParallelLinear down(pipeline, matrix(numbers(8 * 8, 5), 8));
    const ColumnParallelLinear up(pipeline, matrix(numbers(8 * 8, 4), 8));
    std::vector<std::int64_t> calls;
    for (const std::int64_t rows : {255, 300, 400, 300}) {
      const auto before = pipeline.communication().sequence();
      const auto y = pipeline.run(pipeline.replicate(matrix(numbers(rows * 8, 1), 8)), up, down, to<Replicate>);
      calls.push_back(static_cast<std::int64_t>(pipeline.communication().sequence() - before));
    }
    pipeline.sync().chunking().stop();
    const auto before = pipeline.communication().sequence();
    (void)pipeline.run(pipeline.replicate(matrix(numbers(600 * 8, 1), 8)), up, down, to<Replicate>);
    calls.push_back(static_cast<std::int64_t>(pipeline.communication().sequence() - before));
    return calls;
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.what() == "");
    const auto& calls = *outcome.value;
    CHECK(calls == *outcomes[0].value);
    CHECK(calls[0] == 1);
    CHECK((ranks > 1 && !shared ? calls[1] > 10 : calls[1] == 1));
    CHECK((calls[2] == 1 || calls[2] == 2));  // whole, or in two parts; 4 of fewer than 128 rows are not tried
    CHECK(calls[3] == calls[2]);
    CHECK(calls[4] == 1);
  }
  check_clean(recorded);
}

TEST_CASE("whichever call of CUDA fails while sums and products are on, it is an error, and nothing is left",
          "[overlap]") {
  const auto run = [&](std::int64_t failing, std::int64_t& calls) {
    Recording recorded({.gpus = 2});
    auto all = devices(2, false, 8);
    const auto before = recorded.calls();
    if (failing > 0) recorded.fail(failing);
    int errors = 0;
    const auto outcomes = try_pipelines(std::move(all), {}, Peer({.connect_deadline = 5s}),
                                        [](auto& pipeline) { return two_mlps(pipeline, 20); }, {.deadline = 400ms});
    for (const auto& outcome : outcomes) {
      errors += outcome.error != nullptr;
      if (outcome.error)
        CHECK(outcome.troika_error());
      else
        CHECK(distance(*outcome.value, on_one_host(20)) < 1e-5);
    }
    calls = recorded.calls() - before;
    CHECK(joined(recorded.live()) == "");
    return errors;
  };
  std::int64_t calls = 0, ignored = 0;
  run(0, calls);
  REQUIRE(calls > 100);
  int failed = 0;
  constexpr int runs = 16;
  for (std::int64_t n = 1; n < calls; n += calls / runs) {
    CAPTURE(n);
    failed += run(n, ignored);
  }
  CHECK(failed > runs / 2);
}
