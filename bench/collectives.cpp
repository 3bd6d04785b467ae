// SPDX-License-Identifier: Apache-2.0

// Time of collectives between threads, by size, beside what memory allows. Ranks are pinned to cores, round robin; rank
// 0 measures. bench/compare_collectives puts the times beside those of MPI.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <troika/communication/communication.hpp>
#include <troika/communication/threads.hpp>
#include <troika/device/host/device.hpp>
#include <troika/device/host/team.hpp>

namespace {

using namespace troika;
using Clock = std::chrono::steady_clock;

int cores() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

// Runs body(communication, rank) on pinned ranks.
template <class F>
void on_ranks(int ranks, F&& body) {
  auto world = std::make_shared<World>(ranks);
  std::vector<HostDevice> devices;
  for (int r = 0; r < ranks; ++r) devices.emplace_back(r);
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      pin_this_thread(r % cores());
      Rank<HostDevice> rank(r, devices[static_cast<std::size_t>(r)], world);
      Communication communication{rank, Threads{}};
      body(communication);
    });
  }
  for (auto& thread : threads) thread.join();
}

// Every iteration is a batch of calls; its time divided by the calls is one sample. The other ranks follow rank 0.
template <class Call>
void measure(benchmark::State& state, std::size_t floats_in, std::size_t floats_out, Call&& call) {
  const int ranks = static_cast<int>(state.range(0));
  const auto batch = std::max<std::int64_t>(
      1, std::min<std::int64_t>(200, (1 << 22) / static_cast<std::int64_t>(4 * std::max(floats_in, floats_out) + 1)));
  on_ranks(ranks, [&](auto& communication) {
    std::vector<float> in(floats_in, 1e-3f), out(floats_out);
    const auto once = [&] { call(communication, std::span<float>(in), std::span<float>(out)); };
    for (int i = 0; i < 3; ++i) once();
    std::uint8_t more = 1;
    if (communication.rank() == 0) {
      for (auto _ : state) {
        communication.broadcast(std::span(&more, 1), Root{0});
        communication.barrier();
        const auto begin = Clock::now();
        for (std::int64_t i = 0; i < batch; ++i) once();
        state.SetIterationTime(std::chrono::duration<double>(Clock::now() - begin).count() /
                               static_cast<double>(batch));
      }
      more = 0;
      communication.broadcast(std::span(&more, 1), Root{0});
    } else {
      for (;;) {
        communication.broadcast(std::span(&more, 1), Root{0});
        if (!more) break;
        communication.barrier();
        for (std::int64_t i = 0; i < batch; ++i) once();
      }
    }
  });
}

// algbw: bytes of the larger buffer per second. busbw: what crosses between ranks if nothing is sent twice, as
// nccl-tests count it.
void count_bandwidth(benchmark::State& state, std::size_t bytes, double bus_factor) {
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["algbw"] = benchmark::Counter(static_cast<double>(bytes), rate, benchmark::Counter::kIs1000);
  state.counters["busbw"] =
      benchmark::Counter(static_cast<double>(bytes) * bus_factor, rate, benchmark::Counter::kIs1000);
}

void all_reduce(benchmark::State& state) {
  const auto ranks = static_cast<double>(state.range(0));
  const auto bytes = static_cast<std::size_t>(state.range(1)), count = bytes / 4;
  measure(state, count, count, [](auto& c, auto in, auto out) { c.all_reduce(in, out); });
  count_bandwidth(state, bytes, 2 * (ranks - 1) / ranks);
}
void all_gather(benchmark::State& state) {
  const auto ranks = static_cast<double>(state.range(0));
  const auto bytes = static_cast<std::size_t>(state.range(1)),
             part = bytes / 4 / static_cast<std::size_t>(state.range(0));
  measure(state, part, part * static_cast<std::size_t>(state.range(0)),
          [](auto& c, auto in, auto out) { c.all_gather(in, out); });
  count_bandwidth(state, bytes, (ranks - 1) / ranks);
}
void reduce_scatter(benchmark::State& state) {
  const auto ranks = static_cast<double>(state.range(0));
  const auto bytes = static_cast<std::size_t>(state.range(1)),
             part = bytes / 4 / static_cast<std::size_t>(state.range(0));
  measure(state, part * static_cast<std::size_t>(state.range(0)), part,
          [](auto& c, auto in, auto out) { c.reduce_scatter(in, out); });
  count_bandwidth(state, bytes, (ranks - 1) / ranks);
}
void barrier(benchmark::State& state) {
  measure(state, 1, 1, [](auto& c, auto, auto) { c.barrier(); });
}

// What an all_reduce of this size cannot beat: each rank reads its part of all inputs and writes it to all outputs,
// nobody waits for anybody inside. One rank a core.
void memory_limit(benchmark::State& state) {
  const auto bytes = static_cast<std::size_t>(state.range(1));
  const auto ranks = static_cast<std::size_t>(state.range(0));
  std::vector<std::vector<float>> in(ranks, std::vector<float>(bytes / 4, 1.0f)), out = in;
  const auto batch = std::max<std::size_t>(1, std::min<std::size_t>(200, (1 << 22) / bytes));
  on_ranks(state.range(0) > cores() ? cores() : static_cast<int>(ranks), [&](auto& communication) {
    const std::size_t begin = bytes / 4 / ranks * static_cast<std::size_t>(communication.rank()),
                      end = begin + bytes / 4 / ranks;
    const auto once = [&] {
      for (std::size_t i = begin; i < end; i += 16) {
        float sum[16];
        std::memcpy(sum, &in[0][i], sizeof sum);
        for (std::size_t r = 1; r < ranks; ++r)
          for (std::size_t k = 0; k < 16; ++k) sum[k] += in[r][i + k];
        for (auto& to : out) std::memcpy(&to[i], sum, sizeof sum);
      }
    };
    std::uint8_t more = 1;
    once();
    const auto follow = [&] {
      communication.broadcast(std::span(&more, 1), Root{0});
      return more != 0;
    };
    if (communication.rank() == 0) {
      for (auto _ : state) {
        follow();
        const auto start = Clock::now();
        for (std::size_t i = 0; i < batch; ++i) once();
        state.SetIterationTime(std::chrono::duration<double>(Clock::now() - start).count() /
                               static_cast<double>(batch));
      }
      more = 0;
      follow();
    } else {
      while (follow())
        for (std::size_t i = 0; i < batch; ++i) once();
    }
  });
  count_bandwidth(state, bytes, 2 * (static_cast<double>(ranks) - 1) / static_cast<double>(ranks));
}

void by_size(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"ranks", "bytes"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (const int ranks : {2, 4}) {
    for (std::int64_t bytes = 1 << 10; bytes <= 64 << 20; bytes *= 4) benchmark->Args({ranks, bytes});
  }
}
void limits(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"ranks", "bytes"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (std::int64_t bytes = 1 << 10; bytes <= 64 << 20; bytes *= 4) benchmark->Args({2, bytes});
}

BENCHMARK(barrier)->ArgNames({"ranks"})->Arg(2)->Arg(4)->UseManualTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(all_reduce)->Apply(by_size);
BENCHMARK(all_gather)->Apply(by_size);
BENCHMARK(reduce_scatter)->Apply(by_size);
BENCHMARK(memory_limit)->Apply(limits);

// --samples RANKS BATCHES in|out: the times of all_reduce, in place or into another buffer, in a form that
// compare_collectives reads, as collectives_mpi prints them.
int print_samples(int ranks, int batches, bool in_place) {
  on_ranks(ranks, [&](auto& communication) {
    // The sum of zeros is zero, however often it is taken in place.
    std::vector<float> in((64 << 20) / 4, 0.0f), out(in_place ? 0 : in.size(), 0.0f);
    const auto time = [&](std::size_t bytes, auto&& once) {
      const int calls = static_cast<int>(std::max<std::size_t>(2, std::min<std::size_t>(1000, (8 << 20) / bytes)));
      for (int i = 0; i < std::min(calls, 50); ++i) once();
      std::vector<double> samples;
      for (int b = 0; b < batches; ++b) {
        communication.barrier();
        const auto begin = Clock::now();
        for (int i = 0; i < calls; ++i) once();
        samples.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count() / calls);
      }
      if (communication.rank() == 0) {
        std::printf("%zu", bytes);
        for (const double sample : samples) std::printf(" %.4f", sample);
        std::printf("\n");
      }
    };
    time(1, [&] { communication.barrier(); });
    for (std::size_t bytes = 1 << 10; bytes <= in.size() * 4; bytes *= 4) {
      const auto from = std::span(in).first(bytes / 4);
      time(bytes, [&] {
        if (in_place)
          communication.all_reduce(from);
        else
          communication.all_reduce(from, std::span(out).first(bytes / 4));
      });
    }
  });
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::string(argv[1]) == "--samples")
    return print_samples(std::atoi(argv[2]), std::atoi(argv[3]), std::string(argv[4]) == "in");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
