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
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <troika/core/weight_type.hpp>
#include <troika/device/host/host.hpp>
#include <troika/device/weight.hpp>

namespace {

using namespace troika;

// Of this thread: other programs on the machine take from the wall clock, not from this one.
double seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Chains of multiply-adds in registers: enough of them to hide the latency of each. The best of several tries, a
// second.
#define CHAINS(V)                                                                                  \
  typedef float Vector __attribute__((vector_size(V)));                                            \
  constexpr int chains = V == 64 ? 24 : 12, rounds = 20000;                                        \
  Vector sums[chains] = {}, factor = {}, term = {};                                                \
  double best = 0;                                                                                 \
  for (int repeat = 0; repeat < 40; ++repeat) {                                                    \
    benchmark::DoNotOptimize(factor);                                                              \
    benchmark::DoNotOptimize(term);                                                                \
    const double start = seconds();                                                                \
    for (int i = 0; i < rounds; ++i)                                                               \
      _Pragma("GCC unroll 24") for (int j = 0; j < chains; ++j) sums[j] = sums[j] * factor + term; \
    best = std::max(best, rounds * chains * 2.0 * (V / 4) / (seconds() - start));                  \
  }                                                                                                \
  benchmark::DoNotOptimize(sums);                                                                  \
  return best;
#if defined(__x86_64__)
__attribute__((target("avx512f"))) double avx512_flops() { CHAINS(64) }
__attribute__((target("avx2,fma"))) double avx2_flops() { CHAINS(32) }
#endif
double plain_flops() { CHAINS(16) }
#undef CHAINS

// The same in pairs of bf16 and in fours of bytes.
#if defined(__x86_64__)
enum class Chain { pairs, bytes };
template <Chain chain>
__attribute__((target("avx512f,avx512bf16,avx512vnni"))) double chains_of_products() {
  constexpr int chains = 12, rounds = 40000;
  __m512 sums[chains], factor = _mm512_set1_ps(0.5f);
  for (int j = 0; j < chains; ++j) sums[j] = _mm512_set1_ps(static_cast<float>(j));
  double best = 0;
  for (int repeat = 0; repeat < 40; ++repeat) {
    benchmark::DoNotOptimize(factor);
    const double start = seconds();
    for (int i = 0; i < rounds; ++i) {
      _Pragma("GCC unroll 12") for (int j = 0; j < chains; ++j) {
        if constexpr (chain == Chain::pairs)
          sums[j] = _mm512_dpbf16_ps(sums[j], (__m512bh)factor, (__m512bh)factor);
        else
          sums[j] = (__m512)_mm512_dpbusd_epi32((__m512i)sums[j], (__m512i)factor, (__m512i)factor);
      }
    }
    best = std::max(best, rounds * chains * (chain == Chain::pairs ? 64.0 : 128.0) / (seconds() - start));
  }
  benchmark::DoNotOptimize(sums);
  return best;
}
#endif

double float_flops() {
#if defined(__x86_64__)
  if (cpu_level() == CpuLevel::avx512) return avx512_flops();
  if (cpu_level() == CpuLevel::avx2) return avx2_flops();
#endif
  return plain_flops();
}

double peak_flops(WeightType type) {
  static const double floats = float_flops();
#if defined(__x86_64__)
  static const double pairs = cpu_has_bf16() ? chains_of_products<Chain::pairs>() : floats;
  static const double bytes = cpu_has_vnni() ? chains_of_products<Chain::bytes>() : floats;
  return type == WeightType::bf16 ? pairs : is_quantised(type) ? bytes : floats;
#else
  (void)type;
  return floats;
#endif
}

// Bytes a second that `places` streams of one thread read from memory.
template <std::size_t places>
double read_bandwidth(const std::uint64_t* memory, std::size_t count) {
  const std::size_t each = count / places;
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
    const std::size_t count = (std::size_t{32} << 20) + 8 * 8 * 5;  // streams do not share cache sets
    HostDevice device;
    auto buffer = device.allocate_exact(count * sizeof(std::uint64_t));  // where weights lie, too
    auto* const memory = reinterpret_cast<std::uint64_t*>(buffer.data());
    std::fill(memory, memory + count, 1);
    double best = 0;
    for (int repeat = 0; repeat < 5; ++repeat) {
      best = std::max(
          {best, read_bandwidth<1>(memory, count), read_bandwidth<4>(memory, count), read_bandwidth<8>(memory, count)});
    }
    return best;
  }();
  return peak;
}

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
  const double limit = std::max(flops / peak_flops(type), bytes / peak_bandwidth());

  double spent = 0, least = 1e9;
  std::size_t turn = 0;
  for (auto _ : state) {
    const double start = seconds();
    weights[turn++ % weights.size()].visit([&](auto w) { linear(stream, std::as_const(x).view(), w, y.view()); });
    benchmark::DoNotOptimize(y.data());
    const double took = seconds() - start;
    state.SetIterationTime(took);
    spent += took;
    least = std::min(least, took);
  }
  const double each = spent / static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = flops / each * 1e-9;
  state.counters["GB/s"] = bytes / each * 1e-9;
  state.counters["peak_GFLOP/s"] = peak_flops(type) * 1e-9;
  state.counters["peak_GB/s"] = peak_bandwidth() * 1e-9;
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
