// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include <support/catch.hpp>
#include <support/fake_nvml.hpp>

#include "runtime/recorder.hpp"

#include <troika/device/cuda/device.hpp>
#include <troika/scheduling/dynamic_allocation.hpp>
#include <troika/scheduling/round_robin.hpp>
#include <troika/scheduling/task_scheduler.hpp>

using troika::recording::Recording;
using troika::test::FakeNvml;

namespace {

constexpr std::size_t GiB = std::size_t{1} << 30;

// Two GPUs of which NVML tells, at a time that stands still.
template <class Allocation = troika::DynamicAllocation>
struct Watched {
  const Recording recording{{.gpus = 2}};
  std::chrono::steady_clock::time_point now{std::chrono::hours(1)};
  troika::TaskScheduler<Allocation, troika::CudaDevice> scheduler;

  explicit Watched(std::size_t memory_limit = SIZE_MAX)
      : scheduler(troika::cuda_devices(
                      {.memory_limit = memory_limit, .nvml = std::make_shared<troika::Gpus>(FakeNvml::find())}),
                  Allocation{}, {.clock = [this] { return now; }}) {}
  ~Watched() {
    FakeNvml::lost = false;
    FakeNvml::reasons_now = 0;
  }
  int runs_on() {
    return scheduler.submit([](troika::CudaDevice& device) { return device.index(); }).get();
  }
};

}  // namespace

TEST_CASE("a scheduler knows of its GPUs what NVML says of them") {
  Watched<> watched;
  const auto loads = watched.scheduler.loads();
  CHECK(loads[0].free_memory == 60 * GiB);
  CHECK(loads[0].utilisation == 0.75);
  CHECK(loads[0].healthy);
  CHECK_FALSE(loads[0].slowed);
  CHECK(loads[1].utilisation == 0);  // it does not say

  FakeNvml::reasons_now = 0x40;
  CHECK_FALSE(watched.scheduler.loads()[0].slowed);  // it was asked in this second
  watched.now += std::chrono::seconds(1);
  CHECK(watched.scheduler.loads()[0].slowed);
}

TEST_CASE("no share goes to a GPU that is lost, until it is back") {
  Watched<> watched;
  for (const int device : {0, 1}) watched.scheduler.report(device, device == 0 ? 1 : 9, 1);
  CHECK(watched.scheduler.shares()[1] == Catch::Approx(0.9));
  FakeNvml::lost = true;  // the second
  watched.now += std::chrono::seconds(1);
  CHECK_FALSE(watched.scheduler.loads()[1].healthy);
  CHECK(watched.scheduler.shares() == std::vector<double>{1, 0});
  FakeNvml::lost = false;
  watched.now += std::chrono::seconds(1);
  CHECK(watched.scheduler.shares()[1] == Catch::Approx(0.9));
}

TEST_CASE("no task goes to a GPU that is lost") {
  Watched<troika::RoundRobin> watched;
  const int first = watched.runs_on();
  CHECK(watched.runs_on() == 1 - first);
  FakeNvml::lost = true;
  watched.now += std::chrono::seconds(1);
  for (int i = 0; i < 5; ++i) CHECK(watched.runs_on() == 0);
}

TEST_CASE("what a GPU has left is never more than its limit leaves") {
  Watched<> watched(GiB);
  const auto load = watched.scheduler.loads()[0];
  CHECK(load.free_memory < GiB);
  CHECK(load.free_memory > GiB / 2);
}
