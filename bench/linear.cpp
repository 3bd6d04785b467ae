// SPDX-License-Identifier: Apache-2.0
// y = x wT by tokens and type of the weights, on one core, beside what the core can do: its multiply-adds (of bf16 and
// of bytes, where weights in bf16 and quantised ones can use them) and its reads from memory, measured in the same run.
// fraction_of_peak is that of whichever of the two limits the shape.
#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <troika/core/weight_type.hpp>
#include <troika/device/host/host.hpp>
#include <troika/device/weight.hpp>

#include "limits.hpp"

namespace {

using namespace troika;

// Bytes that are finite numbers in every type, and not all the same.
void fill(Weight<HostDevice>& weight) {
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < weight.bytes(); ++i) {
    state = state * 1664525u + 1013904223u;
    weight.data()[i] = static_cast<std::byte>(state >> 24 & 0x2f);
  }
}

void linear_on_one_core(benchmark::State& state, WeightType type) {
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  HostDevice device(0, {{available_cores().back()}});
  device.team().pin_caller();
  HostStream stream(device);
  HostTensor<float> x(device, {m, k}), y(device, {m, n});
  // Copies in turn, more than the caches hold: a model reads its weights from memory.
  std::vector<Weight<HostDevice>> weights;
  do {
    weights.emplace_back(device, type, Shape{n, k});
    if (weights.size() == 1)
      fill(weights.front());
    else
      std::memcpy(weights.back().data(), weights.front().data(), weights.front().bytes());
    weights.back().set_order(weights.front().order());
    make_ready(device, weights.back());
  } while (weights.size() * weights.front().bytes() < std::size_t{160} << 20);
  for (std::int64_t i = 0; i < x.count(); ++i) x.data()[i] = static_cast<float>(i % 17) - 8;
  const double flops = 2 * static_cast<double>(m * n * k), bytes = static_cast<double>(weights.front().bytes());
  static const double peak_bandwidth = bench::read_bandwidth({available_cores().back()});
  const double limit = std::max(flops / bench::peak_rate(type), bytes / peak_bandwidth);

  double spent = 0, least = 1e9;
  std::size_t turn = 0;
  for (auto _ : state) {
    const double start = bench::thread_seconds();
    weights[turn++ % weights.size()].visit([&](auto w) { linear(stream, std::as_const(x).view(), w, y.view()); });
    benchmark::DoNotOptimize(y.data());
    const double took = bench::thread_seconds() - start;
    state.SetIterationTime(took);
    spent += took;
    least = std::min(least, took);
  }
  const double each = spent / static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = flops / each * 1e-9;
  state.counters["GB/s"] = bytes / each * 1e-9;
  state.counters["peak_GFLOP/s"] = bench::peak_rate(type) * 1e-9;
  state.counters["peak_GB/s"] = peak_bandwidth * 1e-9;
  state.counters["fraction_of_peak"] = limit / each;
  state.counters["best_fraction"] = limit / least;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (std::size_t i = 0; i < weight_layouts.size(); ++i) {
    const auto type = static_cast<WeightType>(i);
    std::string name(to_string(type));
    if (!is_quantised(type))
      std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    auto* bench = benchmark::RegisterBenchmark(("linear/" + name).c_str(), linear_on_one_core, type);
    bench->ArgNames({"tokens", "out", "in"})->UseManualTime()->Unit(benchmark::kMillisecond);
    for (const std::int64_t tokens : {1, 2, 4, 8, 16, 64, 128, 512}) bench->Args({tokens, 4096, 4096});
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
