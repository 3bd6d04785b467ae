// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/reference_model.hpp>
#include <support/tiny_model.hpp>

#include <troika/communication/fastest.hpp>
#include <troika/communication/nccl.hpp>
#include <troika/communication/peer.hpp>
#include <troika/device/attention_mask.hpp>
#include <troika/device/cuda/cuda.hpp>
#include <troika/models/decoder.hpp>
#include <troika/troika.hpp>

#include "mixed_ranks.hpp"

using namespace troika;
using namespace troika::test;
using Catch::Matchers::ContainsSubstring;
using models::Decoder;
using recording::Recording;

namespace {

std::vector<CudaDevice> invariant_gpus(Precision precision = Precision::exact) {
  return cuda_devices({.precision = precision, .invariant = true});
}

template <class Transport, class F>
auto on_every_gpu(std::vector<CudaDevice> devices, const Transport& transport, F&& f) {
  TaskScheduler scheduler{std::move(devices), StaticAllocation{}};
  return scheduler.run_on_every_device([&](auto& rank) {
    Communication communication{rank, transport};
    DataSync sync{communication};
    Pipeline pipeline{scheduler, sync, communication};
    return f(pipeline);
  });
}

std::vector<std::int32_t> prompt_of(std::int64_t vocab) {
  std::vector<std::int32_t> ids;
  for (int i = 0; i < 40; ++i) ids.push_back(static_cast<std::int32_t>((37 * i * i + 11 * i + 3) % vocab));
  return ids;
}

// The logits of every token, read in chunks, the same on all ranks.
template <class Transport>
Values logits_of(const LoadedModel& model, int ranks, const std::vector<std::size_t>& chunks,
                 const Transport& transport, Precision precision) {
  const auto ids = prompt_of(model.config.vocab_size);
  const Recording recording({.gpus = ranks, .schedule = {shim::Schedule::Order::forward}});
  const auto all = on_every_gpu(invariant_gpus(precision), transport, [&](auto& pipeline) {
    const Decoder decoder(pipeline, model.config, model.weights);
    auto cache = decoder.make_cache(pipeline.device());
    Values logits;
    std::size_t at = 0;
    for (const auto chunk : chunks) {
      const auto some = std::span(ids).subspan(at, chunk);
      const auto whole =
          pipeline.run(decoder.forward(pipeline, some, cache, static_cast<std::int64_t>(chunk)), to<Replicate>);
      const auto values = values_of<float>(pipeline, whole);
      logits.insert(logits.end(), values.begin(), values.end());
      at += chunk;
    }
    return logits;
  });
  for (const auto& rank : all) CHECK(rank == all[0]);
  CHECK(recording.problems().empty());
  CHECK(recording.live().empty());
  return all[0];
}

}  // namespace

TEST_CASE("invariant GPUs give the same bits for every world, transport and chunking, and the right ones") {
  // More keys than attention reads at once, in windows of five.
  const auto tiny = TinyModel::make("mistral", 21);
  const LoadedModel model(tiny);
  const auto expected = logits_of(model, 1, {40}, Threads{}, Precision::exact);
  const auto reference = ReferenceModel(tiny).logits(prompt_of(tiny.vocab));
  const auto vocab = static_cast<std::size_t>(tiny.vocab);
  for (const std::size_t t : {std::size_t{0}, std::size_t{39}})
    CHECK(distance(std::span(expected).subspan(t * vocab, vocab), reference[t]) < 2e-5);
  CHECK(logits_of(model, 2, {3, 33, 4}, Threads{}, Precision::exact) == expected);
  CHECK(logits_of(model, 4, {39, 1}, Peer{}, Precision::exact) == expected);

  const LoadedModel experts(TinyModel::make("qwen3_moe", 22));
  const auto of_experts = logits_of(experts, 1, {9}, Threads{}, Precision::fast);
  CHECK(logits_of(experts, 2, {1, 8}, Peer{}, Precision::fast) == of_experts);
  CHECK(logits_of(experts, 8, {6, 3}, Threads{}, Precision::fast) == of_experts);
}

TEST_CASE("a token has the same bits on invariant GPUs beside other sequences as alone") {
  const LoadedModel model(TinyModel::make("qwen3", 24, DType::bf16));
  const auto ids = prompt_of(model.config.vocab_size);
  Values alone;
  for (const int ranks : {1, 2}) {
    for (const int others : {0, 3}) {
      const Recording recording({.gpus = ranks, .schedule = {shim::Schedule::Order::forward}});
      const auto all = on_every_gpu(invariant_gpus(Precision::fast), Threads{}, [&](auto& pipeline) {
        const Decoder decoder(pipeline, model.config, model.weights);
        auto memory = decoder.make_memory(pipeline.device(), others + 1);
        std::vector<std::int32_t> pages;
        for (int i = 0; i <= others; ++i) pages.push_back(i);
        Values last;
        std::int64_t at = 0;
        for (const std::int64_t tokens : {5, 1}) {
          models::Batch batch;
          for (int i = 0; i <= others; ++i) {
            const auto from = static_cast<std::size_t>(at + (i == others ? 0 : (i + 1) % 3));
            batch.add(std::span(ids).subspan(from, static_cast<std::size_t>(tokens)), at,
                      std::span(pages).subspan(static_cast<std::size_t>(i), 1));
          }
          const auto whole = pipeline.run(decoder.forward(pipeline, batch, memory), to<Replicate>);
          const auto values = values_of<float>(pipeline, whole);
          last.insert(last.end(), values.end() - model.config.vocab_size, values.end());
          at += tokens;
        }
        return last;
      });
      if (alone.empty()) alone = all[0];
      INFO(ranks << " ranks, " << others << " others");
      CHECK(all[0] == alone);
    }
  }
}

TEST_CASE("a query has the same bits on invariant GPUs, whatever the number of others, over many keys") {
  constexpr std::int64_t heads = 2, d = 64, keys = 700, most = 40;
  const auto cached = numbers(keys * d, 1), queries = numbers(most * heads * d, 2);
  const std::vector<std::int32_t> kv_head_of{0, 0};
  for (const auto& [type, window] : {std::pair{KvType::f32, keys}, {KvType::bf16, keys}, {KvType::f16, 601}}) {
    Values alone;
    for (const std::int64_t tokens : {std::int64_t{1}, std::int64_t{2}, most}) {
      const Recording recording({.schedule = {shim::Schedule::Order::forward}});
      CudaDevice device(0, {.invariant = true});
      CudaStream stream(device);
      CudaTensor<float> q(device, {tokens, heads, d}), kv(device, {keys, 1, d}), y(device, {tokens, heads, d});
      const std::int64_t first = (most - tokens) * heads * d;
      upload(stream, View<const float>(queries.data() + first, q.shape()), q.view());
      upload(stream, View<const float>(cached.data(), kv.shape()), kv.view());
      KvRows<CudaDevice> rows(device, type, kv.shape());
      store(stream, std::as_const(kv).view(), rows, 0);
      attention(stream, std::as_const(q).view(), rows.first(keys), rows.first(keys), kv_head_of,
                AttentionMask::causal(keys - tokens, window), 0.5f, y.view());
      const auto all = read_back(stream, std::as_const(y).view());
      const Values last(all.span().end() - heads * d, all.span().end());
      if (alone.empty()) alone = last;
      INFO(tokens << " tokens, window " << window << ", " << to_string(type));
      CHECK(last == alone);
    }
  }
}

TEST_CASE("invariant GPUs refuse NCCL and other worlds in one sentence") {
  const LoadedModel model(TinyModel::make("llama"));
  const auto load = [&](std::vector<CudaDevice> devices, const auto& transport) {
    (void)on_every_gpu(std::move(devices), transport,
                       [&](auto& pipeline) { return Decoder(pipeline, model.config, model.weights).context(); });
  };
  {
    const Recording recording({.gpus = 2});
    CHECK_THROWS_WITH(load(invariant_gpus(), Nccl{}), ContainsSubstring("invariant devices go by Peer or Threads"));
    std::string said;
    const Log log([&](LogLevel, std::string_view line) { said = line; });
    load(invariant_gpus(), Fastest({.log = log}));
    CHECK_THAT(said,
               ContainsSubstring("2 GPUs: Peer; NCCL is not used: ") && ContainsSubstring("in an order of its own"));
  }
  const Recording recording({.gpus = 3});
  CHECK_THROWS_WITH(load(invariant_gpus(), Peer{}), ContainsSubstring("1, 2, 4 or 8 ranks, not on 3"));
}
