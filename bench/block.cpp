// SPDX-License-Identifier: Apache-2.0
// One Llama block on ranks of one core each: time by tokens, type of the weights and world size.
//
//   block/WIDTH/TYPE/TOKENS/RANKS
//
// WIDTH is the hidden size; heads are 64 wide, 4 of them share a KV head, the MLP is 4 times as wide. A prompt of many
// tokens begins at position 0; a single token sees 511 before it. all_reduce is the share of rank 0's time in there,
// waiting for its peer included; of_peak is of the fused multiply-adds that these cores could do.
// bench/block_pytorch.py puts the times beside those of PyTorch.

#include <cctype>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "limits.hpp"

#include <troika/communication/communication.hpp>
#include <troika/communication/threads.hpp>
#include <troika/core/weight_type.hpp>
#include <troika/device/host/host.hpp>
#include <troika/layers/block.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/sync/data_sync.hpp>

namespace {

using namespace troika;
using Clock = std::chrono::steady_clock;

struct Sizes {
  std::int64_t hidden, tokens;
  std::int64_t head_dim = 64;
  std::int64_t heads() const { return hidden / head_dim; }
  std::int64_t kv_heads() const { return heads() / 4; }
  std::int64_t intermediate() const { return 4 * hidden; }
  std::int64_t cached() const { return tokens == 1 ? 511 : 0; }

  double operations() const {  // over all ranks; a token attends to itself and what is before it
    const auto kv_features = kv_heads() * head_dim;
    const auto weights =
        static_cast<double>(2 * hidden * hidden + 2 * hidden * kv_features + 3 * hidden * intermediate());
    const auto n = static_cast<double>(tokens);
    const double pairs = n * static_cast<double>(cached()) + n * (n + 1) / 2;
    return 2 * n * weights + 4 * pairs * static_cast<double>(hidden);
  }
};

// Counts the time in all_reduce.
class TimedCommunication : public Communication<Threads> {
 public:
  using Communication<Threads>::Communication;

  template <Element E>
  void all_reduce(std::span<E> data, Reduction reduction = Reduction::sum) {
    const auto begin = Clock::now();
    Communication<Threads>::all_reduce(data, reduction);
    seconds += std::chrono::duration<double>(Clock::now() - begin).count();
  }
  double seconds = 0;
};

// Weights of about the size that keeps activations near 1, cheap to make.
class Filler {
 public:
  explicit Filler(std::uint64_t seed) : state_(seed) {}

  Weight<HostDevice> weight(HostDevice& device, WeightType type, std::int64_t rows, std::int64_t columns) {
    Weight<HostDevice> weight(device, type, {rows, columns});
    const float scale = 1.7f / std::sqrt(static_cast<float>(columns));
    const auto fill = [&]<class W>(W*) {
      auto* const data = reinterpret_cast<W*>(weight.data());
      for (std::int64_t i = 0; i < rows * columns; ++i) data[i] = W(scale * next());
    };
    if (type == WeightType::f32)
      fill(static_cast<float*>(nullptr));
    else if (type == WeightType::bf16)
      fill(static_cast<bf16*>(nullptr));
    else
      for (std::size_t i = 0; i < weight.bytes(); ++i)
        weight.data()[i] = static_cast<std::byte>(scatter() & 0x1f);  // small
    make_ready(device, weight);
    return weight;
  }
  HostTensor<float> tensor(HostDevice& device, Shape shape) {
    HostTensor<float> tensor(device, shape);
    for (auto& value : tensor.span()) value = next();
    return tensor;
  }

 private:
  std::uint32_t scatter() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state_ >> 32);
  }
  float next() { return static_cast<float>(static_cast<std::int32_t>(scatter())) * 0x1p-31f; }  // in [-1, 1)
  std::uint64_t state_;
};

template <class Pipeline>
DecoderBlock<HostDevice> make_block(Pipeline& pipeline, const Sizes& sizes, WeightType type) {
  auto& device = pipeline.device();
  const int rank = pipeline.rank();
  Filler fill(static_cast<std::uint64_t>(rank) + 1);
  const auto heads =
      HeadSplit::make(pipeline.shares(), sizes.heads(), sizes.kv_heads(), sizes.head_dim, layout_of(type).block);
  const auto query = heads.query_features(), kv = heads.kv_features(),
             wide = pipeline.partition(sizes.intermediate(), layout_of(type).block);
  const auto column = [&](const Partition& rows) {
    return ColumnParallelLinear<HostDevice>(fill.weight(device, type, rows[rank].size(), sizes.hidden), rows, rank);
  };
  const auto row = [&](const Partition& columns) {
    return RowParallelLinear<HostDevice>(fill.weight(device, type, sizes.hidden, columns[rank].size()), columns, rank);
  };
  const auto norm = [&] {
    HostTensor<float> ones(device, {sizes.hidden});
    for (auto& value : ones.span()) value = 1;
    return RmsNorm<HostDevice>(std::move(ones), 1e-5f, rank);
  };
  return {norm(), {heads, column(query), column(kv), column(kv), row(query), rank}, {},
          norm(), GatedMlp<HostDevice>{{column(wide), column(wide)}, row(wide)},    {}};
}

// What rank 0 measures while the others follow it.
template <class Pipeline>
void measure(benchmark::State& state, Pipeline& pipeline, const Sizes& sizes, WeightType type) {
  auto& communication = pipeline.communication();
  const auto block = make_block(pipeline, sizes, type);
  const auto end = sizes.cached() + sizes.tokens;
  const RotaryTable rotary(end, sizes.head_dim);
  const auto kv_heads = block.attention.heads().kv[pipeline.rank()].size();
  KvMemory<HostDevice> cache(pipeline.device(), 1, end, kv_heads, sizes.head_dim);
  const std::vector<float> zeros(static_cast<std::size_t>(end * kv_heads * sizes.head_dim));
  for (auto* rows : {&cache.layer(0).keys, &cache.layer(0).values}) {
    store(pipeline.stream(), View<const float>(zeros.data(), rows->shape()), *rows, 0);
  }
  std::vector<std::int32_t> positions(static_cast<std::size_t>(sizes.tokens));
  std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(sizes.cached()));
  const SequenceRows sequence{.tokens = sizes.tokens, .cached = sizes.cached()};
  const AttentionContext<HostDevice> context{
      .positions = positions, .rotary = &rotary, .cache = &cache.layer(0), .sequences = {&sequence, 1}};
  const auto input = Filler(99).tensor(pipeline.device(), {sizes.tokens, sizes.hidden});

  const auto once = [&] {
    HostTensor<float> x(pipeline.device(), input.shape());
    copy(pipeline.stream(), input.view(), x.view());
    communication.barrier();
    const auto begin = Clock::now();
    const auto y = block.forward(pipeline, DTensor<float, Replicate, HostDevice>(std::move(x)), context);
    benchmark::DoNotOptimize(y.values().data());
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  once();
  communication.seconds = 0;
  std::uint8_t more = 1;
  const auto go_on = [&] {
    communication.broadcast(std::span(&more, 1), Root{0});
    return more != 0;
  };
  if (pipeline.rank() != 0) {
    while (go_on()) once();
    return;
  }
  double total = 0;
  for (auto _ : state) {
    (void)go_on();
    const double seconds = once();
    total += seconds;
    state.SetIterationTime(seconds);
  }
  more = 0;
  (void)go_on();
  static const double peak = bench::peak_rate(WeightType::f32);
  const double average = total / static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = sizes.operations() / average * 1e-9;
  state.counters["of_peak"] = sizes.operations() / average / (peak * pipeline.world_size());
  state.counters["all_reduce"] = communication.seconds / total;
}

void run_block(benchmark::State& state, Sizes sizes, WeightType type, int ranks) {
  const auto cores = available_cores();
  if (static_cast<int>(cores.size()) < ranks) {
    state.SkipWithError("there are fewer cores than ranks");
    return;
  }
  std::vector<std::vector<int>> groups;
  for (int r = 0; r < ranks; ++r) groups.push_back({cores[static_cast<std::size_t>(r)]});
  TaskScheduler scheduler{host_devices(std::move(groups)), StaticAllocation{}};
  scheduler.run_on_every_device([&](auto& rank) {
    TimedCommunication communication{rank, Threads{}};
    DataSync sync{communication};
    Pipeline pipeline{scheduler, sync, communication};
    measure(state, pipeline, sizes, type);
  });
}

std::string lower(std::string_view name) {
  std::string result(name);
  for (auto& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const std::int64_t hidden : {1024, 2048}) {
    for (const auto type : {WeightType::f32, WeightType::bf16, WeightType::q8_0, WeightType::q4_0, WeightType::q4_k}) {
      for (const std::int64_t tokens : {1, 128, 512}) {
        for (const int ranks : {1, 2}) {
          const auto name = "block/" + std::to_string(hidden) + "/" + lower(to_string(type)) + "/" +
                            std::to_string(tokens) + "/" + std::to_string(ranks);
          benchmark::RegisterBenchmark(name.c_str(), run_block, Sizes{hidden, tokens}, type, ranks)
              ->UseManualTime()
              ->Unit(benchmark::kMillisecond);
        }
      }
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
