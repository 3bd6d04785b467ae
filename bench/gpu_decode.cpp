// SPDX-License-Identifier: Apache-2.0
// A decode step of one token through the blocks of a model of about a billion weights, given to the GPU call by call and
// as a graph, in turn with copies of its memory: the median of each, and whether steps give the same bits. Ranks that
// share the GPU show that their collectives go into graphs, not how fast several GPUs are.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/peer.hpp>
#include <troika/communication/threads.hpp>
#include <troika/device/cuda/cuda.hpp>
#include <troika/layers/block.hpp>
#include <troika/scheduling/static_allocation.hpp>
#include <troika/scheduling/task_scheduler.hpp>
#include <troika/sync/data_sync.hpp>

namespace {

using namespace troika;

constexpr std::int64_t hidden = 2048, heads = 32, kv_heads = 8, head_dim = 64, wide = 8192, cached = 1023;
constexpr int blocks = 16, rounds = 9, steps = 20;
constexpr std::int64_t copied = std::int64_t{64} << 20;  // floats: more than any cache holds

// Small numbers, finite in every type.
Weight<CudaDevice> weight(CudaStream& stream, std::int64_t rows, std::int64_t columns) {
  Weight<CudaDevice> made(stream.device(), WeightType::bf16, Shape{rows, columns});
  fill_on_host(stream, View<std::byte>(made.data(), {static_cast<std::int64_t>(made.bytes())}),
               [](std::span<std::byte> bytes) {
                 std::uint32_t random = 1;
                 for (std::byte& byte : bytes) {
                   random = random * 1664525u + 1013904223u;
                   byte = static_cast<std::byte>(random >> 24 & 0x3b);
                 }
               });
  return made;
}

template <class Pipeline>
DecoderBlock<CudaDevice> make_block(Pipeline& pipeline) {
  CudaStream& stream = pipeline.stream();
  const int rank = pipeline.rank();
  const auto split = HeadSplit::make(pipeline.shares(), heads, kv_heads, head_dim);
  const auto query = split.query_features(), kv = split.kv_features(), inner = pipeline.partition(wide);
  const auto column = [&](const Partition& rows) {
    return ColumnParallelLinear<CudaDevice>(weight(stream, rows[rank].size(), hidden), rows, rank);
  };
  const auto row = [&](const Partition& columns) {
    return RowParallelLinear<CudaDevice>(weight(stream, hidden, columns[rank].size()), columns, rank);
  };
  const auto norm = [&] {
    CudaTensor<float> ones(stream.device(), {hidden});
    fill_on_host(stream, ones.view(), [](std::span<float> values) { std::ranges::fill(values, 1.0f); });
    return RmsNorm<CudaDevice>(std::move(ones), 1e-5f, rank);
  };
  return {norm(), {split, column(query), column(kv), column(kv), row(query), rank}, {},
          norm(), GatedMlp<CudaDevice>{{column(inner), column(inner)}, row(inner)}, {}};
}

struct Measured {
  std::vector<double> eager, graph, copy;  // seconds of a step, and of a copy, round by round
  std::vector<float> output;               // empty if steps gave different bits
};

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

template <class Transport>
std::vector<Measured> measure(int ranks, Transport transport) {
  TaskScheduler scheduler{cuda_devices({.virtual_ranks = ranks, .graphs = StepGraphs::whole}, {0}), StaticAllocation{}};
  return scheduler.run_on_every_device([&](auto& rank) {
    Communication communication{rank, transport};
    DataSync sync{communication};
    Pipeline pipeline{scheduler, sync, communication};
    CudaStream& stream = pipeline.stream();

    std::vector<DecoderBlock<CudaDevice>> stack;
    for (int i = 0; i < blocks; ++i) stack.push_back(make_block(pipeline));
    const RotaryTable rotary(cached + 1, head_dim);
    const auto kv = stack[0].attention.heads().kv[pipeline.rank()].size();
    KvMemory<CudaDevice> memory(pipeline.device(), blocks, cached + 1, kv, head_dim);
    CudaTensor<float> zeros(pipeline.device(), {cached + 1, kv, head_dim});
    fill_zero(stream, zeros.view());
    for (int i = 0; i < blocks; ++i)
      for (auto* rows : {&memory.layer(i).keys, &memory.layer(i).values})
        store(stream, std::as_const(zeros).view(), *rows, 0);
    const std::int32_t position = cached;
    const SequenceRows sequence{.tokens = 1, .cached = cached};
    CudaTensor<float> input(pipeline.device(), {1, hidden});
    fill_on_host(stream, input.view(), [](std::span<float> values) { std::ranges::fill(values, 1.0f); });

    CudaGraphs graphs(pipeline.device());
    const auto step = [&] {
      CudaTensor<float> x(pipeline.device(), input.shape());
      copy(stream, std::as_const(input).view(), x.view());
      DTensor<float, Replicate, CudaDevice> y(std::move(x));
      for (int i = 0; i < blocks; ++i) {
        const AttentionContext<CudaDevice> context{
            .positions = {&position, 1}, .rotary = &rotary, .cache = &memory.layer(i), .sequences = {&sequence, 1}};
        y = stack[static_cast<std::size_t>(i)].forward(pipeline, std::move(y), context);
      }
      return y;
    };
    const auto in_graph = [&] { return graphs.run(step, [&] { communication.barrier(); }); };
    Tensor<float, CudaDevice> from(pipeline.device(), {copied}), to(pipeline.device(), {copied});
    fill_zero(stream, from.view());
    Measured result;
    bool same = true;
    // Each works alone, and once before it is timed.
    const auto timed = [&](int count, const auto& work, std::vector<double>& seconds) {
      communication.barrier();
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < count; ++i) {
        work();
        stream.synchronize();  // as whoever chooses the next token does
      }
      const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
      communication.barrier();
      seconds.push_back(spent.count() / count);
    };
    const auto check = [&](const auto& y) {
      const auto values = read_back(stream, y.local());
      if (result.output.empty()) result.output.assign(values.span().begin(), values.span().end());
      same = same && std::memcmp(values.span().data(), result.output.data(), values.span().size_bytes()) == 0;
    };
    for (int round = 0; round <= rounds; ++round) {
      timed(steps, step, result.eager);
      timed(steps, in_graph, result.graph);
      // One rank copies, and the others wait for it.
      timed(
          pipeline.rank() == 0 ? 4 : 1,
          [&] {
            if (pipeline.rank() == 0) copy(stream, std::as_const(from).view(), to.view());
          },
          result.copy);
      check(step());
      check(in_graph());
      if (round == 0)
        for (auto* seconds : {&result.eager, &result.graph, &result.copy}) seconds->clear();
    }
    if (!same) result.output.clear();
    return result;
  });
}

template <class Transport>
bool compare(int ranks, const char* name, Transport transport) {
  const auto measured = measure(ranks, transport);
  const double weights = 2.0 * blocks * hidden * (2 * hidden + 2 * kv_heads * head_dim + 3 * wide);  // bytes
  bool same = true;
  for (const auto& of_rank : measured) same = same && !of_rank.output.empty() && of_rank.output == measured[0].output;
  const double eager = median(measured[0].eager), graph = median(measured[0].graph);
  const double rate = 2.0 * sizeof(float) * static_cast<double>(copied) / median(measured[0].copy);
  std::printf("decode step, %d blocks of %lld, bf16, %d rank(s), %s, medians of %d: eager %.3f ms, graph %.3f ms, ",
              blocks, static_cast<long long>(hidden), ranks, name, rounds, 1e3 * eager, 1e3 * graph);
  std::printf("%.2f times as fast; weights read at %.0f and %.0f GB/s, %.2f and %.2f of the %.0f of a copy; %s\n",
              eager / graph, 1e-9 * weights / eager, 1e-9 * weights / graph, weights / eager / rate,
              weights / graph / rate, 1e-9 * rate, same ? "the same bits" : "OTHER BITS");
  return same;
}

}  // namespace

int main() {
  if (cuda_device_count() == 0) {
    std::puts("SKIPPED: no GPU");
    return 0;
  }
  const bool alone = compare(1, "Threads", Threads{});
  const bool shared = compare(2, "Peer, sharing the GPU", Peer{});
  return alone && shared ? 0 : 1;
}
