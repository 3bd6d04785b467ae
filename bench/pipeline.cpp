// SPDX-License-Identifier: Apache-2.0
// What the pipeline costs around stages that do nothing: time of ten stages, and of each of them.

#include <chrono>
#include <utility>

#include <benchmark/benchmark.h>

#include <troika/communication/communication.hpp>
#include <troika/communication/threads.hpp>
#include <troika/device/host/host.hpp>
#include <troika/pipeline.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/sync/data_sync.hpp>

namespace {

using namespace troika;
using Clock = std::chrono::steady_clock;
using Value = DTensor<float, Replicate, HostDevice>;

struct Nothing {
  static constexpr std::string_view name = "nothing";
  Value operator()(Value&& x, HostStream&) const {
    benchmark::ClobberMemory();  // a stage that the compiler cannot see through
    return std::move(x);
  }
};

constexpr int stages = 10;

// body(pipeline, x) passes x through ten stages.
template <class Body>
void measure(benchmark::State& state, Trace* trace, Body body) {
  TaskScheduler scheduler{host_devices(1), StaticAllocation{}, {.trace = trace}};
  scheduler.run_on_every_device([&](auto& rank) {
    Communication communication{rank, Threads{}};
    DataSync sync{communication};
    Pipeline pipeline{scheduler, sync, communication};
    Value x(HostTensor<float>(pipeline.device(), {1, 1}));
    const auto begin = Clock::now();
    for (auto _ : state) x = body(pipeline, std::move(x));
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    state.counters["ns_per_stage"] = seconds * 1e9 / static_cast<double>(state.iterations()) / stages;
  });
}

const auto through_pipeline = [](auto& pipeline, Value&& x) {
  const Nothing s;
  return pipeline.run(std::move(x), s, s, s, s, s, s, s, s, s, s);
};

void direct_calls(benchmark::State& state) {
  measure(state, nullptr, [](auto& pipeline, Value&& x) {
    const Nothing s;
    for (int i = 0; i < stages; ++i) x = s(std::move(x), pipeline.stream());
    return std::move(x);
  });
}
BENCHMARK(direct_calls);

void pipeline_stages(benchmark::State& state) { measure(state, nullptr, through_pipeline); }
BENCHMARK(pipeline_stages);

// A trace keeps every span: so many iterations and no more.
void pipeline_stages_traced(benchmark::State& state) {
  Trace trace;
  measure(state, &trace, through_pipeline);
}
BENCHMARK(pipeline_stages_traced)->Iterations(50'000);

// A move to where the tensor is already.
void moves_to_the_same_place(benchmark::State& state) {
  measure(state, nullptr, [](auto& pipeline, Value&& x) {
    constexpr auto& r = to<Replicate>;
    return pipeline.run(std::move(x), r, r, r, r, r, r, r, r, r, r);
  });
}
BENCHMARK(moves_to_the_same_place);

}  // namespace

BENCHMARK_MAIN();
