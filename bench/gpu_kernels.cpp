// SPDX-License-Identifier: Apache-2.0
// Kernels of one GPU, beside the rate of a copy that was measured in the same run: the limit of what only moves memory.
// Products of many rows are cuBLASLt's. Inputs take turns, so that none is still in the cache.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include <troika/device/cuda/cuda.hpp>
#include <troika/device/weight.hpp>

namespace {

using namespace troika;

constexpr std::size_t out_of_cache = std::size_t{256} << 20;  // bytes: above the L2 of every GPU so far
constexpr int calls = 20;                                     // between two waits for the stream

struct Gpu {
  CudaDevice device{0};
  CudaStream stream{device};

  CudaTensor<float> numbers(Shape shape) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<std::size_t>(shape.count()));
    for (float& value : values) value = normal(random);
    CudaTensor<float> tensor(device, shape);
    upload(stream, View<const float>(values.data(), shape), tensor.view());
    return tensor;
  }
};
Gpu& gpu() {
  static Gpu only;
  return only;
}

// Seconds of one call of f(i), where i counts the calls.
double seconds_of(const std::function<void(std::size_t)>& f) {
  const auto begin = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < calls; ++i) f(i);
  gpu().stream.synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / calls;
}

// Of a copy, reading and writing, at this moment.
double copy_rate() {
  static const auto from = gpu().numbers({static_cast<std::int64_t>(out_of_cache / sizeof(float))});
  static CudaTensor<float> to(gpu().device, from.shape());
  const double seconds = seconds_of([](auto) { copy(gpu().stream, from.view(), to.view()); });
  return 2.0 * static_cast<double>(out_of_cache) / seconds;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// What is measured, the copy and what else is `beside` take turns, so that all have the same clocks; medians of each. The
// median of f in seconds.
double measure(
    benchmark::State& state, double bytes, double flops, const std::function<void(std::size_t)>& f,
    const std::function<void()>& beside = [] {}) {
  seconds_of(f);
  std::vector<double> seconds, rates;
  for (auto _ : state) {
    seconds.push_back(seconds_of(f));
    state.SetIterationTime(seconds.back());
    beside();
    rates.push_back(copy_rate());
  }
  const double each = median(seconds), rate = median(rates);
  state.counters["GB/s"] = 1e-9 * bytes / each;
  state.counters["copy_GB/s"] = 1e-9 * rate;
  state.counters["fraction_of_copy"] = bytes / each / rate;
  if (flops > 0) state.counters["TFLOP/s"] = 1e-12 * flops / each;
  return each;
}

// Rows of 8192 floats, as many as do not fit the cache.
constexpr std::int64_t width = 8192, rows = static_cast<std::int64_t>(out_of_cache) / (4 * width);
constexpr double block = static_cast<double>(out_of_cache);

void norm(benchmark::State& state) {
  const auto x = gpu().numbers({rows, width}), weight = gpu().numbers({width});
  CudaTensor<float> y(gpu().device, x.shape());
  measure(state, 2 * block, 0, [&](auto) { rms_norm(gpu().stream, x.view(), weight.span(), 1e-5f, y.view()); });
}
void sum(benchmark::State& state) {
  const auto a = gpu().numbers({rows, width}), b = gpu().numbers({rows, width});
  CudaTensor<float> y(gpu().device, a.shape());
  measure(state, 3 * block, 0, [&](auto) { add(gpu().stream, a.view(), b.view(), y.view()); });
}
void gated(benchmark::State& state) {
  const auto gate = gpu().numbers({rows, width}), up = gpu().numbers({rows, width});
  CudaTensor<float> y(gpu().device, gate.shape());
  measure(state, 3 * block, 0,
          [&](auto) { activate_multiply(gpu().stream, Activation::silu, gate.view(), up.view(), y.view()); });
}

Weight<CudaDevice> matrix(WeightType type, std::int64_t n, std::int64_t k) {
  Weight<CudaDevice> weight(gpu().device, type, Shape{n, k});
  const View<std::byte> bytes(weight.data(), {static_cast<std::int64_t>(weight.bytes())});
  fill_on_host(gpu().stream, bytes, [](std::span<std::byte> values) {
    std::uint32_t random = 1;  // numbers that are finite in every type
    for (std::byte& value : values)
      value = static_cast<std::byte>((random = random * 1664525u + 1013904223u) >> 24 & 0x2f);
  });
  return weight;
}

void product(benchmark::State& state, WeightType type) {
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const auto x = gpu().numbers({m, k});
  CudaTensor<float> y(gpu().device, {m, n});
  std::vector<Weight<CudaDevice>> weights;
  do {
    weights.push_back(matrix(type, n, k));
  } while (weights.size() * weights.front().bytes() < out_of_cache);
  measure(state, static_cast<double>(weights.front().bytes()), 2.0 * static_cast<double>(m * n * k),
          [&](std::size_t i) {
            weights[i % weights.size()].visit([&](auto w) { linear(gpu().stream, x.view(), w, y.view()); });
          });
}

// What decoding multiplies with one x: q, k and v, or gate and up, in one call; and beside it, in turn, one by one.
template <std::size_t count>
void products(benchmark::State& state, WeightType type, std::array<std::int64_t, count> n) {
  const std::int64_t m = state.range(0), k = 4096;
  const auto x = gpu().numbers({m, k});
  std::array<CudaTensor<float>, count> y;
  for (std::size_t i = 0; i < count; ++i) y[i] = CudaTensor<float>(gpu().device, {m, n[i]});
  std::vector<std::array<Weight<CudaDevice>, count>> weights;
  std::size_t bytes = 0;
  do {
    auto& some = weights.emplace_back();
    for (std::size_t i = 0; i < count; ++i) bytes += (some[i] = matrix(type, n[i], k)).bytes();
  } while (bytes < out_of_cache);
  std::vector<double> alone;
  const auto one_by_one = [&](std::size_t call) {
    const auto& some = weights[call % weights.size()];
    for (std::size_t i = 0; i < count; ++i)
      some[i].visit([&](auto w) { linear(gpu().stream, x.view(), w, y[i].view()); });
  };
  const auto together = [&](std::size_t call) {
    const auto& some = weights[call % weights.size()];
    [&]<std::size_t... i>(std::index_sequence<i...>) {
      const std::array<Product<CudaDevice>, count> all{Product<CudaDevice>{some[i], y[i].view(), nullptr}...};
      linear_together(gpu().stream, x.view(), all);
    }
    (std::make_index_sequence<count>());
  };
  seconds_of(one_by_one);
  const double each = static_cast<double>(bytes) / static_cast<double>(weights.size());
  const double all = measure(state, each, 0, together, [&] { alone.push_back(seconds_of(one_by_one)); });
  state.counters["one_by_one_GB/s"] = 1e-9 * each / median(alone);
  state.counters["times_as_fast"] = median(alone) / all;
}

// A prompt of `tokens` after `cached` others, 32 query heads that share 8 KV heads. What tensor cores do by mma is the
// limit: about 60 % of their rate in the products above.
void prompt_attention(benchmark::State& state, KvType type) {
  const std::int64_t tokens = state.range(0), cached = state.range(1), d = state.range(2), all = tokens + cached;
  constexpr std::int64_t heads = 32, kv_heads = 8;
  const auto q = gpu().numbers({tokens, heads, d});
  CudaTensor<float> y(gpu().device, q.shape());
  KvRows<CudaDevice> keys(gpu().device, type, {all, kv_heads, d}), values(gpu().device, type, {all, kv_heads, d});
  const auto numbers = gpu().numbers({all, kv_heads, d});
  store(gpu().stream, numbers.view(), keys, 0);
  store(gpu().stream, numbers.view(), values, 0);
  std::vector<std::int32_t> kv_head_of(heads);
  for (std::int64_t i = 0; i < heads; ++i)
    kv_head_of[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * kv_heads / heads);
  const double pairs =
      static_cast<double>(tokens) * (static_cast<double>(cached) + static_cast<double>(tokens + 1) / 2);
  measure(state,
          2.0 * static_cast<double>(q.count()) * sizeof(float) + static_cast<double>(keys.bytes() + values.bytes()),
          4.0 * pairs * static_cast<double>(heads * d), [&](auto) {
            attention(gpu().stream, q.view(), keys.first(all), values.first(all), kv_head_of,
                      AttentionMask::causal(cached), 0.1f, y.view());
          });
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  if (cuda_device_count() == 0) {
    std::puts("SKIPPED: no GPU");
    return 0;
  }
  benchmark::RegisterBenchmark("gpu/rms_norm", norm)->UseManualTime();
  benchmark::RegisterBenchmark("gpu/add", sum)->UseManualTime();
  benchmark::RegisterBenchmark("gpu/silu_multiply", gated)->UseManualTime();
  // One row is decoding: every type, in a matrix as large as those of 70B, and in one as small as those of 1B and 8B.
  for (std::size_t i = 0; i < weight_layouts.size(); ++i) {
    const auto type = static_cast<WeightType>(i);
    auto* bench = benchmark::RegisterBenchmark(("gpu/linear/" + std::string(to_string(type))).c_str(), product, type);
    bench->ArgNames({"tokens", "out", "in"})->UseManualTime()->MinTime(0.1);
    bench->Args({1, 8192, 8192})->Args({1, 4096, 4096});
    const bool many =
        type == WeightType::f32 || type == WeightType::bf16 || type == WeightType::q8_0 || type == WeightType::q4_k;
    if (!many) continue;
    for (const std::int64_t tokens : {8, 512, 4096}) bench->Args({tokens, 8192, 8192});
  }
  // Those of 8B, whole and as one of 8 ranks has them.
  for (const auto type : {WeightType::bf16, WeightType::q8_0, WeightType::q4_k}) {
    const auto add = [&](const char* name, auto n) {
      benchmark::RegisterBenchmark(("gpu/" + std::string(name) + "/" + std::string(to_string(type))).c_str(),
                                   products<n.size()>, type, n)
          ->ArgName("tokens")
          ->UseManualTime()
          ->MinTime(0.1)
          ->Arg(1)
          ->Arg(4);
    };
    add("qkv", std::array<std::int64_t, 3>{4096, 1024, 1024});
    add("qkv_of_8", std::array<std::int64_t, 3>{512, 128, 128});
    add("gate_up", std::array<std::int64_t, 2>{14336, 14336});
    add("gate_up_of_8", std::array<std::int64_t, 2>{1792, 1792});
  }
  for (const KvType type : {KvType::bf16, KvType::f16, KvType::q8}) {
    const std::string name = "gpu/attention/" + std::string(to_string(type));
    auto* bench = benchmark::RegisterBenchmark(name.c_str(), prompt_attention, type);
    bench->ArgNames({"tokens", "cached", "head_dim"})->UseManualTime()->MinTime(0.1);
    for (const std::int64_t d : {64, 128}) bench->Args({4096, 0, d});
    bench->Args({512, 8192, 128})->Args({1, 32768, 128});
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
