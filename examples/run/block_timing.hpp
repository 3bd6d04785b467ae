// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <troika/models/split.hpp>
#include <troika/troika.hpp>

#include "gpus.hpp"
#include "machine.hpp"

struct BlockTime {
  double milliseconds = 0;      // one forward pass, median
  double all_reduce_share = 0;  // of that, in all_reduce, waiting for the other ranks included
};

// Times one decoder block with random bf16 weights of the shapes in `config`, split over these devices.
template <class D>
std::vector<BlockTime> time_block(const troika::models::ModelConfig& config, const std::vector<D>& devices,
                                  const std::vector<std::int64_t>& token_counts, troika::HostReport* report = nullptr) {
  using Clock = std::chrono::steady_clock;
  troika::Trace trace;
  troika::TaskScheduler scheduler{devices, troika::StaticAllocation{}, {.trace = &trace}};
  return scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, transport_of<D>};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    const auto split = troika::models::ModelSplit::make(config, pipeline.shares());

    std::uint32_t state = 12345u + static_cast<std::uint32_t>(rank.rank());
    const auto weight = [&](std::int64_t rows, std::int64_t columns) {  // uniform in (-1/64, 1/64)
      troika::Weight<D> result(pipeline.device(), troika::DType::bf16, {rows, columns});
      const troika::View<std::uint16_t> all(reinterpret_cast<std::uint16_t*>(result.data()), {rows, columns});
      fill_on_host(pipeline.stream(), all, [&](std::span<std::uint16_t> bits) {
        for (auto& value : bits) {
          state = state * 1664525u + 1013904223u;
          value = static_cast<std::uint16_t>((state >> 31 << 15) | (0x3c00u + (state >> 23 & 0x7fu)));
        }
      });
      make_ready(pipeline.device(), result);
      return result;
    };
    const auto norm = [&] {
      troika::Tensor<float, D> ones(pipeline.device(), {config.hidden_size});
      fill_on_host(pipeline.stream(), ones.view(), [](std::span<float> values) { std::ranges::fill(values, 1.0f); });
      return troika::RmsNorm<D>(std::move(ones), config.norm_eps, pipeline.rank());
    };
    const auto column = [&](const troika::Partition& partition) {
      const auto rows = partition[pipeline.rank()].size();
      return troika::ColumnParallelLinear<D>(weight(rows, config.hidden_size), partition, pipeline.rank());
    };
    const auto row = [&](const troika::Partition& partition) {
      const auto columns = partition[pipeline.rank()].size();
      return troika::RowParallelLinear<D>(weight(config.hidden_size, columns), partition, pipeline.rank());
    };
    const auto query = split.heads.query_features(), kv = split.heads.kv_features();
    const troika::DecoderBlock<D> block{
        norm(),
        {split.heads, column(query), column(kv), column(kv), row(query), pipeline.rank()},
        {},
        norm(),
        troika::GatedMlp<D>{{column(split.intermediate), column(split.intermediate)}, row(split.intermediate)},
        {}};

    const auto most = *std::ranges::max_element(token_counts);
    const troika::RotaryTable rotary(most, config.head_dim);
    std::vector<std::int32_t> positions(static_cast<std::size_t>(most));
    std::iota(positions.begin(), positions.end(), 0);
    troika::KvMemory<D> cache(pipeline.device(), 1, most, split.heads.kv[pipeline.rank()].size(), config.head_dim);

    std::vector<BlockTime> times;
    for (const auto tokens : token_counts) {
      const troika::SequenceRows sequence{.tokens = tokens};
      const troika::AttentionContext<D> context{
          .positions = std::span(positions).first(static_cast<std::size_t>(tokens)),
          .rotary = &rotary,
          .cache = &cache.layer(0),
          .sequences = {&sequence, 1}};
      const std::vector<float> input(static_cast<std::size_t>(tokens * config.hidden_size), 0.5f);
      const auto* track = rank.track(troika::Lane::communication);
      std::vector<double> passes, shares;
      for (int pass = 0; pass < 6; ++pass) {
        auto x = pipeline.replicate(troika::View<const float>(input.data(), {tokens, config.hidden_size}));
        communication.barrier();
        const auto before = track->total();
        const auto begin = Clock::now();
        (void)block.forward(pipeline, std::move(x), context);
        pipeline.stream().synchronize();
        const std::chrono::duration<double, std::milli> passed = Clock::now() - begin;
        const std::chrono::duration<double, std::milli> reducing = track->total() - before;
        if (pass == 0) continue;  // warms the caches and the pool
        passes.push_back(passed.count());
        shares.push_back(reducing / passed);
      }
      std::ranges::sort(passes);
      std::ranges::sort(shares);
      times.push_back({passes[passes.size() / 2], shares[shares.size() / 2]});
    }
    if (report && rank.rank() == 0) *report = report_of(devices);
    communication.barrier();  // until then nobody gives memory back
    return times;
  })[0];
}
