// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>

#include "runtime/recorder.hpp"

#include <troika/device/cuda/cuda.hpp>

#include "src/device/cuda/queue.hpp"

using troika::CudaDevice;
using troika::CudaGraphs;
using troika::CudaOptions;
using troika::CudaStream;
using troika::CudaTensor;
using troika::StepGraphs;
using troika::View;
using troika::recording::Recording;
using troika::recording::When;
namespace cuda = troika::cuda;

namespace {

using Texts = std::vector<std::string>;
using Values = std::vector<std::int32_t>;

const auto nobody = [] { throw std::runtime_error("nobody is to be met"); };

Values values_of(CudaStream& stream, const std::int32_t* data, std::size_t count) {
  const auto host = read_back(stream, View<const std::int32_t>(data, {static_cast<std::int64_t>(count)}));
  return {host.span().begin(), host.span().end()};
}

// A device whose steps are captured from the second on.
struct Steps {
  explicit Steps(CudaOptions options = {}) : device(0, options) {
    graphs.run([] { return 0; }, nobody);
  }

  CudaDevice device;
  CudaStream stream{device};
  CudaGraphs graphs{device};
};

}  // namespace

TEST_CASE("a step is one graph, which is updated as long as its nodes are alike") {
  const auto when = GENERATE(When::early, When::late);
  const Recording recording({.when = when});
  {
    Steps steps;
    auto& stream = steps.stream;
    CudaTensor<float> x(steps.device, {3, 4}), y(steps.device, {3, 4});
    fill_zero(stream, x.view());
    stream.synchronize();
    const auto launches = recording.launches();
    for (int i = 0; i < 4; ++i) {
      const auto given = [&] {
        for (int n = 0; n <= i / 2; ++n) multiply(stream, 2.0f, std::as_const(x).view(), y.view());
        copy(stream, std::as_const(y).view(), x.view());
        CHECK(recording.launches() == launches + (i + 1) * (i + 1) / 4);
        return i;
      };
      CHECK(steps.graphs.run(given, nobody) == i);
      CHECK(recording.graph_launches() == i + 1);
      CHECK(recording.graphs_made() == i / 2 + 1);
    }
  }
  CHECK(recording.problems() == Texts{});
  CHECK(recording.live() == Texts{});
}

TEST_CASE("values of the host reach a graph as they were when they were given, however many") {
  const auto when = GENERATE(When::early, When::late);
  const Recording recording({.when = when});
  {
    Steps steps;
    CudaStream& stream = steps.stream;
    auto& queue = steps.device.queue();
    constexpr std::int64_t count = 100, step_count = 4;  // more than are kept at first
    CudaTensor<std::int32_t> out(steps.device, {step_count, count, 3});
    for (std::int64_t step = 0; step < step_count; ++step) {
      steps.graphs.run(
          [&] {
            for (std::int64_t i = 0; i < count; ++i) {
              const auto first = static_cast<std::int32_t>(1000 * step + i);
              const Values values{first, first + 1, first + 2};
              const auto* const at = queue.on_device(std::span<const std::int32_t>(values));
              copy(stream, View<const std::int32_t>(at, {3}),
                   View<std::int32_t>(out.data() + (step * count + i) * 3, {3}));
            }
            return 0;
          },
          nobody);
    }
    Values expected;
    for (std::int32_t step = 0; step < step_count; ++step)
      for (std::int32_t i = 0; i < count; ++i)
        for (std::int32_t j = 0; j < 3; ++j) expected.push_back(1000 * step + i + j);
    CHECK(values_of(stream, out.data(), expected.size()) == expected);
  }
  CHECK(recording.graph_launches() == 4);
  CHECK(recording.problems() == Texts{});
  CHECK(recording.live() == Texts{});
}

TEST_CASE("a step in which the host waits is not captured, unless its pieces are wanted") {
  const auto wanted = GENERATE(StepGraphs::none, StepGraphs::whole, StepGraphs::pieces);
  const Recording recording;
  {
    CudaDevice device(0, {.graphs = wanted});
    CudaStream stream(device);
    CudaGraphs graphs(device);
    CudaTensor<float> x(device, {8});
    const auto step = [&] {
      fill_zero(stream, x.view());
      const float before = read_back(stream, std::as_const(x).view()).span()[7];
      change_on_host(stream, x.view(), [](std::span<float> values) { values[7] = 3; });
      multiply(stream, 2.0f, std::as_const(x).view(), x.view());
      return before;
    };
    for (int i = 0; i < 3; ++i) {
      CHECK(graphs.run(step, nobody) == 0);
      CHECK(read_back(stream, std::as_const(x).view()).span()[7] == 6);
    }
  }
  CHECK(recording.graph_launches() == (wanted == StepGraphs::pieces ? 4 : 0));
  CHECK(recording.graphs_made() == (wanted == StepGraphs::pieces ? 2 : 0));
  CHECK(recording.problems() == Texts{});
  CHECK(recording.live() == Texts{});
}

TEST_CASE("steps are captured once the host does not wait in them any more") {
  const Recording recording;
  {
    CudaDevice device;
    CudaStream stream(device);
    CudaGraphs graphs(device);
    CudaTensor<float> x(device, {8});
    for (const bool waits : {true, true, false, false, false}) {
      graphs.run(
          [&] {
            fill_zero(stream, x.view());
            if (waits) stream.synchronize();
            return 0;
          },
          nobody);
    }
  }
  CHECK(recording.graph_launches() == 2);  // the third is watched
  CHECK(recording.problems() == Texts{});
  CHECK(recording.live() == Texts{});
}

TEST_CASE("what was captured by a step that failed is not done, and the stream goes on") {
  const Recording recording;
  {
    Steps steps;
    CudaStream& stream = steps.stream;
    auto& queue = steps.device.queue();
    CudaTensor<std::int32_t> x(steps.device, {4});
    fill_zero(stream, x.view());
    const Values values{1, 2, 3, 4};
    const auto give = [&] {
      const auto* const at = queue.on_device(std::span<const std::int32_t>(values));
      copy(stream, View<const std::int32_t>(at, {4}), x.view());
    };
    const auto failing = [&]() -> int {
      give();
      throw std::runtime_error("no more paper");
    };
    CHECK_THROWS_WITH(steps.graphs.run(failing, nobody), "no more paper");
    CHECK(values_of(stream, x.data(), 4) == Values{0, 0, 0, 0});
    give();  // the copy of the values was not done either
    CHECK(values_of(stream, x.data(), 4) == values);
  }
  CHECK(recording.graph_launches() == 0);
  CHECK(recording.problems() == Texts{});
  CHECK(recording.live() == Texts{});
}

TEST_CASE("memory that work in a graph uses goes back to the driver after its launch") {
  const Recording recording({.memory = std::size_t{48} << 20});
  {
    Steps steps;
    CudaStream& stream = steps.stream;
    CudaTensor<float> y(steps.device, {4});
    steps.graphs.run(
        [&] {
          {
            const auto exact = steps.device.allocate_exact(16);
            CudaTensor<float> large(steps.device, {2 << 20});
            cuda::zero_bytes(stream, const_cast<std::byte*>(exact.data()), 16);
            fill_zero(stream, large.view());
            cuda::copy_bytes(stream, exact.data(), y.data(), 16);
          }
          const auto before = recording.graph_launches();
          CudaTensor<float> larger(steps.device, {3 << 20});  // where `large` has to go first
          fill_zero(stream, larger.view());
          CHECK(recording.graph_launches() == before + 1);
          return 0;
        },
        nobody);
    CHECK(read_back(stream, std::as_const(y).view()).span()[3] == 0);
  }
  CHECK(recording.problems() == Texts{});
  CHECK(recording.live() == Texts{});
}

TEST_CASE("whichever call of a captured step fails, it is a named error, and nothing is left") {
  std::int64_t calls = 0, failures = 0;
  for (std::int64_t failing = 0; failing <= calls; ++failing) {
    CAPTURE(failing);
    Recording recording;
    {
      Steps steps({.graphs = StepGraphs::pieces});
      CudaStream& stream = steps.stream;
      CudaTensor<float> x(steps.device, {8});
      const auto step = [&] {
        fill_zero(stream, x.view());
        stream.synchronize();
        const Values values{5, 6};
        return steps.device.queue().on_device(std::span<const std::int32_t>(values));
      };
      const auto before = recording.calls();
      if (failing > 0) recording.fail(failing);
      bool failed = false;
      try {
        for (int i = 0; i < 2; ++i) steps.graphs.run(step, nobody);
      } catch (const troika::Error& error) {
        failed = true;
        CHECK(std::string(error.what()).find("cuda") != std::string::npos);
      }
      if (failing == 0) calls = recording.calls() - before;
      failures += failed;
      CHECK(values_of(stream, reinterpret_cast<const std::int32_t*>(steps.graphs.run(step, nobody)), 2) ==
            Values{5, 6});
    }
    CHECK(recording.problems() == Texts{});
    CHECK(recording.live() == Texts{});
  }
  CHECK(calls > 20);
  CHECK(failures > calls - 5);  // all but those that free things
}

namespace {

struct Captured {
  Captured() {
    REQUIRE(cudaSetDevice(0) == cudaSuccess);
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    REQUIRE(cudaMalloc(&device, 64) == cudaSuccess);
    REQUIRE(cudaHostAlloc(&pinned, 64, cudaHostAllocPortable) == cudaSuccess);
  }
  ~Captured() {
    (void)cudaFreeHost(pinned);
    (void)cudaFree(device);
    (void)cudaEventDestroy(event);
    (void)cudaStreamDestroy(stream);
  }
  void begin() const { REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess); }
  cudaGraph_t end() const {
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    return graph;
  }

  cudaStream_t stream{};
  cudaEvent_t event{};
  void *device = nullptr, *pinned = nullptr;
};

}  // namespace

TEST_CASE("the recording does what is captured when its graph is launched, from what is there then") {
  const Recording recording;
  {
    const Captured captured;
    auto& value = *static_cast<char*>(captured.pinned);
    value = 1;
    captured.begin();
    CHECK(cudaMemcpyAsync(captured.device, &value, 1, cudaMemcpyHostToDevice, captured.stream) == cudaSuccess);
    CHECK(cudaMemcpyAsync(&value, captured.device, 1, cudaMemcpyDeviceToHost, captured.stream) == cudaSuccess);
    auto* const graph = captured.end();
    CHECK(cudaStreamSynchronize(captured.stream) == cudaSuccess);
    value = 2;  // too early: the copy will read this
    cudaGraphExec_t executable = nullptr;
    CHECK(cudaGraphInstantiate(&executable, graph) == cudaSuccess);
    for (int i = 0; i < 2; ++i) CHECK(cudaGraphLaunch(executable, captured.stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(captured.stream) == cudaSuccess);
    CHECK(value == 2);

    captured.begin();
    CHECK(cudaMemsetAsync(captured.device, 7, 1, captured.stream) == cudaSuccess);
    auto* const other = captured.end();
    cudaGraphExecUpdateResultInfo why{};
    CHECK(cudaGraphExecUpdate(executable, other, &why) == cudaErrorGraphExecUpdateFailure);
    CHECK(cudaGraphExecUpdate(executable, graph, &why) == cudaSuccess);
    CHECK(recording.live() ==
          Texts{"1 cudaHostAlloc", "1 cudaMalloc", "1 events", "1 executable graphs", "2 graphs", "1 streams"});
    CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
    for (auto* const each : {graph, other}) CHECK(cudaGraphDestroy(each) == cudaSuccess);
  }
  CHECK(recording.problems() == Texts{});
  CHECK(recording.live() == Texts{});
}

TEST_CASE("the recording refuses what must not be called while a thread captures, and ends the capture") {
  const Recording recording;
  {
    const Captured captured;
    char pageable = 0;
    void* memory = nullptr;
    const std::vector<std::function<cudaError_t()>> forbidden{
        [&] { return cudaStreamSynchronize(captured.stream); },
        [&] { return cudaStreamQuery(captured.stream); },
        [&] { return cudaMalloc(&memory, 1); },
        [&] { return cudaHostAlloc(&memory, 1, cudaHostAllocPortable); },
        [&] { return cudaFree(captured.device); },
        [&] { return cudaEventQuery(captured.event); },
        [&] { return cudaEventSynchronize(captured.event); },
        [&] { return cudaMemcpyAsync(captured.device, &pageable, 1, cudaMemcpyHostToDevice, captured.stream); },
        [&] { return cudaStreamBeginCapture(captured.stream, cudaStreamCaptureModeThreadLocal); },
    };
    for (const auto& call : forbidden) {
      captured.begin();
      CHECK(call() == cudaErrorStreamCaptureUnsupported);
      cudaGraph_t graph = nullptr;
      CHECK(cudaStreamEndCapture(captured.stream, &graph) == cudaErrorStreamCaptureInvalidated);
      CHECK(graph == nullptr);
    }
    CHECK(recording.problems().size() == forbidden.size());
    // What is no part of the graph may be called by who says so.
    captured.begin();
    {
      const cuda::Uncaptured uncaptured;
      CHECK(cudaEventSynchronize(captured.event) == cudaSuccess);
    }
    CHECK(cudaGraphDestroy(captured.end()) == cudaSuccess);
    CHECK(recording.problems().size() == forbidden.size());
  }
  CHECK(recording.live() == Texts{});
}
