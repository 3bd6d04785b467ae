// SPDX-License-Identifier: Apache-2.0
// y = x wT by tokens and type of the weights, on one core, beside what the core can do: its multiply-adds and its reads
// from memory, measured in the same run. fraction_of_peak is that of whichever of the two limits the shape.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <time.h>

#include <troika/device/host/host.hpp>

namespace {

using namespace troika;

// Of this thread: other programs on the machine take from the wall clock, not from this one.
double seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Chains of multiply-adds in registers: enough of them to hide the latency of each. The best of several tries, a second.
#define CHAINS(V)                                                                 \
  typedef float Vector __attribute__((vector_size(V)));                           \
  constexpr int chains = V == 64 ? 24 : 12, rounds = 20000;                       \
  Vector sums[chains] = {}, factor = {}, term = {};                               \
  double best = 0;                                                                \
  for (int repeat = 0; repeat < 40; ++repeat) {                                   \
    benchmark::DoNotOptimize(factor);                                             \
    benchmark::DoNotOptimize(term);                                               \
    const double start = seconds();                                               \
    for (int i = 0; i < rounds; ++i)                                              \
      _Pragma("GCC unroll 24") for (int j = 0; j < chains; ++j) sums[j] = sums[j] * factor + term; \
    best = std::max(best, rounds * chains * 2.0 * (V / 4) / (seconds() - start)); \
  }                                                                               \
  benchmark::DoNotOptimize(sums);                                                 \
  return best;
#if defined(__x86_64__)
__attribute__((target("avx512f"))) double avx512_flops() { CHAINS(64) }
__attribute__((target("avx2,fma"))) double avx2_flops() { CHAINS(32) }
#endif
double plain_flops() { CHAINS(16) }
#undef CHAINS

double peak_flops() {
  static const double peak = [] {
#if defined(__x86_64__)
    if (cpu_level() == CpuLevel::avx512) return avx512_flops();
    if (cpu_level() == CpuLevel::avx2) return avx2_flops();
#endif
    return plain_flops();
  }();
  return peak;
}

// Bytes a second that `places` streams of one thread read from memory.
template <std::size_t places>
double read_bandwidth(const std::vector<std::uint64_t>& memory) {
  const std::size_t each = memory.size() / places;
  std::uint64_t parts[places] = {};
  const double start = seconds();
  for (std::size_t i = 0; i < each; i += 8) {  // a cache line of each
    for (std::size_t place = 0; place < places; ++place) {
      for (std::size_t j = 0; j < 8; ++j) parts[place] += memory[place * each + i + j];
    }
  }
  benchmark::DoNotOptimize(parts);
  return static_cast<double>(places * each * 8) / (seconds() - start);
}

// The best of several tries with more than the caches hold.
double peak_bandwidth() {
  static const double peak = [] {
    const std::vector<std::uint64_t> memory((std::size_t{32} << 20) + 8 * 8 * 5, 1);  // streams do not share cache sets
    double best = 0;
    for (int repeat = 0; repeat < 5; ++repeat) {
      best = std::max({best, read_bandwidth<1>(memory), read_bandwidth<4>(memory), read_bandwidth<8>(memory)});
    }
    return best;
  }();
  return peak;
}

template <class W>
void linear_on_one_core(benchmark::State& state) {
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  HostDevice device(0, {{available_cores().back()}});
  device.team().pin_caller();
  HostStream stream(device);
  HostTensor<float> x(device, {m, k}), y(device, {m, n});
  HostTensor<W> w(device, {n, k});
  for (std::int64_t i = 0; i < x.count(); ++i) x.data()[i] = static_cast<float>(i % 17) - 8;
  for (std::int64_t i = 0; i < w.count(); ++i) w.data()[i] = static_cast<W>(static_cast<float>(i % 13) - 6);
  const double flops = 2 * static_cast<double>(m * n * k), bytes = static_cast<double>(n * k) * sizeof(W);
  const double limit = std::max(flops / peak_flops(), bytes / peak_bandwidth());

  double spent = 0;
  for (auto _ : state) {
    const double start = seconds();
    linear(stream, std::as_const(x).view(), std::as_const(w).view(), y.view());
    benchmark::DoNotOptimize(y.data());
    state.SetIterationTime(seconds() - start);
    spent += seconds() - start;
  }
  const double each = spent / static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = flops / each * 1e-9;
  state.counters["GB/s"] = bytes / each * 1e-9;
  state.counters["peak_GFLOP/s"] = peak_flops() * 1e-9;
  state.counters["peak_GB/s"] = peak_bandwidth() * 1e-9;
  state.counters["fraction_of_peak"] = limit / each;
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"tokens", "out", "in"})->UseManualTime()->Unit(benchmark::kMillisecond);
  for (const std::int64_t tokens : {1, 8, 128, 512}) bench->Args({tokens, 4096, 4096});
}

BENCHMARK_TEMPLATE(linear_on_one_core, float)->Name("linear/f32")->Apply(shapes);
BENCHMARK_TEMPLATE(linear_on_one_core, f16)->Name("linear/f16")->Apply(shapes);
BENCHMARK_TEMPLATE(linear_on_one_core, bf16)->Name("linear/bf16")->Apply(shapes);

}  // namespace

BENCHMARK_MAIN();
