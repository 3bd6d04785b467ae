// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/device/host/elementwise.hpp>
#include <troika/device/host/slices.hpp>
#include <troika/device/tensor.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/serving/self_check.hpp>

namespace troika::serving {

// One rank's part of a check that all ranks run together: it writes what it measures into `check`, which they share.
template <class Communication, class Stream>
void run_self_check(Communication& communication, Stream& stream, SelfCheck& check) {
  constexpr int tries = 3;
  const auto best = [](auto&& f) {
    double least = std::numeric_limits<double>::max();
    for (int i = 0; i < tries; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      f();
      least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return least;
  };
  const auto me = static_cast<std::size_t>(communication.rank());
  using D = typename Stream::Device;
  {
    Tensor<float, D> x(stream.device(), {65536});
    fill_on_host(stream, x.view(), [](std::span<float> values) { std::ranges::fill(values, 0.5f); });
    communication.barrier();
    check.kernels[me] = best([&] {
      apply_gelu(stream, x.view(), x.view());
      stream.synchronize();
    });
  }
  Tensor<std::int32_t, D> message(stream.device(), {1});
  fill_zero(stream, message.view());
  const auto data = message.span();
  for (auto& link : check.links) {
    if (me == link.from) {
      const auto there_and_back = [&] {
        communication.send(data, static_cast<int>(link.to));
        communication.recv(data, static_cast<int>(link.to));
        stream.synchronize();
      };
      there_and_back();  // the other one may still be busy with the link before
      link.seconds = best(there_and_back) / 2;
    } else if (me == link.to) {
      for (int i = 0; i < tries + 1; ++i) {
        communication.recv(data, static_cast<int>(link.from));
        communication.send(data, static_cast<int>(link.from));
      }
    }
  }
  Tensor<float, D> numbers(stream.device(), {1024});
  fill_zero(stream, numbers.view());
  communication.barrier();
  const double seconds = best([&] {
    communication.all_reduce(numbers.span());
    stream.synchronize();
  });
  if (me == 0) {
    check.all_reduce_seconds = seconds;
    check.at = std::chrono::system_clock::now();
  }
  communication.barrier();  // all of it is there
}

// Of devices that do nothing else.
template <class Transport, Device D>
SelfCheck self_check_by(Transport transport, std::vector<D> devices) {
  std::vector<std::string> names;
  for (const auto& device : devices) names.push_back(device.name());
  auto check = SelfCheck::of(std::move(names));
  TaskScheduler scheduler{std::move(devices), StaticAllocation{}};
  scheduler.run_on_every_device([&](auto& rank) {
    Communication communication{rank, transport};
    run_self_check(communication, rank.stream(), check);
  });
  return check;
}

}  // namespace troika::serving
