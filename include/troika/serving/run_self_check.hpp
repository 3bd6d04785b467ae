// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include <troika/device/host/elementwise.hpp>
#include <troika/device/tensor.hpp>
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
  {
    Tensor<float, typename Stream::Device> x(stream.device(), {65536});
    std::ranges::fill(x.span(), 0.5f);
    communication.barrier();
    check.kernels[me] = best([&] {
      apply_gelu(stream, x.view(), x.view());
      stream.synchronize();
    });
  }
  std::int32_t message = 0;
  const std::span data(&message, 1);
  for (auto& link : check.links) {
    if (me == link.from) {
      const auto there_and_back = [&] {
        communication.send(data, static_cast<int>(link.to));
        communication.recv(data, static_cast<int>(link.to));
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
  std::array<float, 1024> numbers{};
  communication.barrier();
  const double seconds = best([&] { communication.all_reduce(std::span<float>(numbers)); });
  if (me == 0) {
    check.all_reduce_seconds = seconds;
    check.at = std::chrono::system_clock::now();
  }
  communication.barrier();  // all of it is there
}

}  // namespace troika::serving
