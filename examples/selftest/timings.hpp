// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <troika/troika.hpp>

namespace selftest {

// One collective of f32 at one size. `bytes` are those of the larger of in and out, as in the tables of nccl-tests; the
// bus factor is how many of them have to leave a rank.
struct Timing {
  std::string collective{};
  std::size_t bytes = 0;
  double seconds = 0, bus_factor = 1;
};

// The median of several runs, each between two waits for the stream.
template <class D, class C>
std::vector<Timing> time_collectives(troika::Rank<D>& rank, C& c, std::span<const std::size_t> sizes) {
  using Clock = std::chrono::steady_clock;
  const auto n = static_cast<std::size_t>(c.world_size());
  const double others = static_cast<double>(n - 1) / static_cast<double>(n);
  std::vector<Timing> timings;
  for (const std::size_t bytes : sizes) {
    const std::size_t count = bytes / sizeof(float) / n * n;
    troika::Tensor<float, D> whole(rank.device(), troika::Shape{static_cast<std::int64_t>(count)});
    troika::Tensor<float, D> other(rank.device(), troika::Shape{static_cast<std::int64_t>(count)});
    fill_zero(rank.stream(), whole.view());
    fill_zero(rank.stream(), other.view());
    const auto part = whole.span().first(count / n);
    const std::vector<std::size_t> counts(n, count / n);
    const auto measure = [&](const char* name, double factor, auto&& run) {
      std::vector<double> seconds;
      for (int i = 0; i < 25; ++i) {
        c.barrier();
        const auto start = Clock::now();
        run();
        rank.stream().synchronize();
        if (i >= 5) seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
      }
      std::nth_element(seconds.begin(), seconds.begin() + 10, seconds.end());
      timings.push_back({name, count * sizeof(float), seconds[10], factor});
    };
    measure("all_reduce", 2 * others, [&] { c.all_reduce(whole.span()); });
    measure("all_gather", others, [&] { c.all_gather(part, other.span()); });
    measure("reduce_scatter", others, [&] { c.reduce_scatter(other.span(), part); });
    measure("broadcast", 1, [&] { c.broadcast(whole.span(), troika::Root{0}); });
    measure("all_to_all", others, [&] { c.all_to_all(whole.span(), counts, other.span(), counts); });
  }
  return timings;
}

}  // namespace selftest
