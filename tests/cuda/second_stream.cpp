// SPDX-License-Identifier: Apache-2.0
#include <troika/device/cuda/second_stream.hpp>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <kernels/language.cuh>
#include <troika/communication/communication.hpp>
#include <troika/communication/peer.hpp>
#include <troika/device/cuda/cuda.hpp>

#include "on_gpu.hpp"
#include "runtime/recorder.hpp"
#include "support/catch.hpp"
#include "support/run_ranks.hpp"

using namespace troika;
using namespace troika::test;
using namespace std::chrono_literals;
using recording::Recording;

TEST_CASE("the second stream comes after the first only where it follows, and the first where the second leads") {
  const auto races = [](bool follows, bool leads) {
    const Recording recorded;
    {
      CudaDevice device;
      CudaStream stream(device);
      CudaTensor<float> x(device, {8}), y(device, {8}), z(device, {8});
      fill_zero(stream, z.view());
      {
        CudaSecondStream second(stream);
        fill_zero(stream, x.view());
        if (follows) second.follow();
        second.give([&] { copy(stream, std::as_const(x).view(), y.view()); });
        if (leads) second.lead();
        copy(stream, std::as_const(y).view(), z.view());
      }
      fill_zero(stream, y.view());  // the end of the second stream is one that the first waits for
      stream.synchronize();
    }
    CHECK(joined(recorded.live()) == "");
    return recorded.problems().size();
  };
  CHECK(races(true, true) == 0);
  CHECK(races(false, true) == 1);
  CHECK(races(true, false) == 1);
}

TEST_CASE("memory that the second stream works on is given back after it, also where something throws") {
  const Recording recorded;
  {
    CudaDevice device;
    CudaStream stream(device);
    CudaTensor<float> x(device, {64});
    fill_zero(stream, x.view());
    CHECK_THROWS_WITH(
        [&] {
          CudaTensor<float> y(device, {64});
          CudaSecondStream second(stream);
          second.give([&] {
            copy(stream, std::as_const(x).view(), y.view());
            throw std::runtime_error("no more water");
          });
        }(),
        "no more water");
    CudaTensor<float> again(device, {64});  // the same memory
    fill_zero(stream, again.view());
    stream.synchronize();
  }
  CHECK(joined(recorded.problems()) == "");
  CHECK(joined(recorded.live()) == "");
}

namespace {

// Stands in a stream until it is opened: a device that is slow, or hangs.
struct Gate {
  std::atomic<bool> open{false};
  void stand_in(CudaStream stream) {
    cuda::launch(
        +[](std::atomic<bool>* opened) {
          while (!*opened) cuda::pause();
        },
        dim3{}, 32, static_cast<cudaStream_t>(stream.native()), &open);
  }
};

// How often `once` was done before the gate had to be opened for it to go on.
template <class F>
int ahead(Gate& gate, int times, F&& once) {
  std::atomic<int> done{0};
  int seen = 0;
  std::thread opens([&] {
    for (int before = -1; before != seen;) {
      before = seen;
      std::this_thread::sleep_for(300ms);
      seen = done;
    }
    gate.open = true;
  });
  for (int i = 0; i < times; ++i) {
    once();
    ++done;
  }
  opens.join();
  return seen;
}

}  // namespace

TEST_CASE("a program that never waits for its device is not far ahead of it") {
  const Recording recorded({.gpus = 1});
  const auto outcomes = try_ranks(gpus(1), [&](auto& rank) {
    Communication c{rank, Peer{}};
    auto stream = rank.stream();
    auto data = on_gpu(rank)(std::vector<float>(100));
    Gate gate;
    gate.stand_in(stream);
    const int collectives = ahead(gate, 300, [&] { c.all_reduce(data.span()); });
    stream.synchronize();

    CudaGraphs graphs(stream.device());
    const auto step = [&] { return fill_zero(stream, View<float>(data.span().data(), {100})), 0; };
    const auto nobody = [] {};
    for (int i = 0; i < 3; ++i) graphs.run(step, nobody);
    Gate other;
    other.stand_in(stream);
    const int steps = ahead(other, 50, [&] { graphs.run(step, nobody); });
    stream.synchronize();
    return std::pair(collectives, steps);
  });
  REQUIRE(outcomes[0].what() == "");
  const auto [collectives, steps] = *outcomes[0].value;
  CHECK(collectives >= 16);
  CHECK(collectives <= 5 * 16);
  CHECK(steps >= 1);
  CHECK(steps <= 5);
  CHECK(joined(recorded.problems()) == "");
  CHECK(joined(recorded.live()) == "");
}

TEST_CASE("who has to wait for a device that waits for another learns which one does not come") {
  const Recording recorded({.gpus = 2});
  Gate gate;
  std::atomic<int> told{0};
  const auto outcomes = try_ranks(gpus(2), [&](auto& rank) {
    Communication c{rank, Peer{}, {.deadline = 2s}};
    auto data = on_gpu(rank)(std::vector<float>(100));
    c.all_reduce(data.span());
    if (rank.rank() == 1) gate.stand_in(rank.stream());
    try {
      for (int i = 0; i < 300; ++i) c.all_reduce(data.span());
    } catch (...) {
      if (++told == 2) gate.open = true;
      throw;
    }
  });
  for (const auto& outcome : outcomes) {
    REQUIRE(outcome.troika_error());
    CHECK(outcome.troika_error()->fault() == Fault::timeout);
    CHECK(outcome.troika_error()->rank() == 1);
  }
  CHECK(joined(recorded.problems()) == "");
  CHECK(joined(recorded.live()) == "");
}
