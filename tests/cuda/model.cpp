// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/temp_folder.hpp>
#include <support/tiny_model.hpp>

#include "on_gpu.hpp"
#include "runtime/recorder.hpp"

#include <troika/communication/nccl.hpp>
#include <troika/communication/peer.hpp>
#include <troika/device/cuda/cuda.hpp>
#include <troika/models/decoder.hpp>
#include <troika/models/encoder.hpp>
#include <troika/models/files/convert.hpp>
#include <troika/models/generate.hpp>
#include <troika/troika.hpp>

using troika::Error;
using troika::KvType;
using troika::Precision;
using troika::StepGraphs;
using troika::recording::Recording;
using troika::recording::When;
using troika::test::names_failed_call;
using Order = troika::shim::Schedule::Order;

namespace {

using Tokens = std::vector<std::int32_t>;

struct Asked {
  const troika::models::ModelConfig& config;
  const troika::models::Weights& weights;
  Tokens prompt;
  troika::models::GenerateOptions generate{};
  troika::models::DecoderOptions decoder{};
};

// The program that a user has, on whatever devices: what each rank gives.
template <class D, class F, class Transport = troika::Threads>
auto on_every(std::vector<D> devices, F f, Transport transport = {}) {
  troika::TaskScheduler scheduler{std::move(devices), troika::StaticAllocation{}};
  return scheduler.run_on_every_device([&](auto& rank) {
    troika::Communication communication{rank, transport};
    troika::DataSync sync{communication};
    troika::Pipeline pipeline{scheduler, sync, communication};
    return f(pipeline);
  });
}
template <class D, class Transport = troika::Threads>
std::vector<Tokens> answers(std::vector<D> devices, const Asked& asked, Transport transport = {}) {
  const auto answer = [&](auto& pipeline) {
    const troika::models::Decoder decoder(pipeline, asked.config, asked.weights, asked.decoder);
    auto cache = decoder.make_cache(pipeline.device());
    return generate(pipeline, decoder, cache, asked.prompt, asked.generate);
  };
  return on_every(std::move(devices), answer, transport);
}

std::vector<troika::CudaDevice> gpus(int virtual_ranks = 1, StepGraphs graphs = StepGraphs::whole) {
  return troika::cuda_devices({.precision = Precision::exact, .virtual_ranks = virtual_ranks, .graphs = graphs});
}
std::vector<troika::HostDevice> one_host() { return troika::host_devices(1, {.precision = Precision::exact}); }

// Threads in an order that caches like.
const troika::recording::Options in_order{.schedule = {Order::forward}};

// The same tokens on so many GPUs as on the host. How many graphs were launched.
template <class Transport = troika::Threads>
std::int64_t check_tokens(const Asked& asked, int ranks, troika::recording::Options options = in_order,
                          int virtual_ranks = 1, Transport transport = {}, StepGraphs graphs = StepGraphs::whole) {
  const auto expected = answers(one_host(), asked)[0];
  REQUIRE(expected.size() >= 2);
  options.gpus = ranks / virtual_ranks;
  const Recording recording(options);
  INFO(ranks << " ranks on " << options.gpus << " GPUs");
  const std::vector<Tokens> on_all(static_cast<std::size_t>(ranks), expected);
  CHECK(answers(gpus(virtual_ranks, graphs), asked, transport) == on_all);
  CHECK(recording.launches() > 0);
  CHECK(recording.problems() == std::vector<std::string>{});
  CHECK(recording.live().empty());
  return recording.graph_launches();
}

const std::filesystem::path bundled = TROIKA_SOURCE_DIR "/examples/model";
const Tokens prompt{1, 17, 42, 5, 99, 63, 8, 20, 77};

}  // namespace

TEST_CASE("the bundled model gives the same tokens on 1 to 4 GPUs as on the host") {
  const auto config = troika::models::ModelConfig::load(bundled);
  const auto weights = troika::models::Weights::open(bundled);
  for (const int ranks : {1, 2, 3, 4}) check_tokens({config, weights, prompt, {.max_tokens = 3}}, ranks);
}

TEST_CASE("models of each kind give the same tokens on GPUs, in every order of work") {
  const std::pair<int, troika::recording::Options> runs[] = {{1, {.when = When::early, .schedule = {Order::forward}}},
                                                             {2, {.when = When::late, .schedule = {Order::reverse}}},
                                                             {3, {.when = When::late, .schedule = {Order::random, 7}}}};
  for (const std::string type : {"llama", "mistral", "qwen2", "qwen3", "gemma2", "qwen3_moe"}) {
    INFO(type);
    const LoadedModel model(TinyModel::make(type));
    for (const auto& [ranks, options] : runs)
      check_tokens({model.config, model.weights, prompt, {.max_tokens = 4}}, ranks, options);
  }
}

TEST_CASE("weights and caches of 16 bits, all ways of sampling, and split prompts work on GPUs") {
  for (const auto dtype : {troika::DType::f16, troika::DType::bf16}) {
    const LoadedModel model(TinyModel::make("llama", 4, dtype));
    check_tokens({model.config, model.weights, prompt, {.max_tokens = 4}}, 2);
  }
  const LoadedModel model(TinyModel::make("llama", 5));
  for (const auto kv_type : {KvType::bf16, KvType::f16, KvType::q8})
    check_tokens({model.config, model.weights, prompt, {.max_tokens = 4}, {.kv_type = kv_type}}, 2);
  for (const troika::SamplingOptions& sampling : {troika::SamplingOptions{.temperature = 1, .top_k = 9, .seed = 3},
                                                  {.temperature = 1.2f, .top_p = 0.8f, .min_p = 0.01f, .seed = 4},
                                                  {.temperature = 1, .seed = 5},
                                                  {.repeat_penalty = 1.5f, .presence_penalty = 0.5f}})
    check_tokens({model.config, model.weights, prompt, {.max_tokens = 6, .sampling = sampling}}, 2);
  check_tokens({model.config, model.weights, prompt, {.max_tokens = 4}, {.sequence_parallel = true}}, 3);
  check_tokens({model.config, model.weights, prompt, {.max_tokens = 4}}, 4, in_order, 4);
  check_tokens({model.config, model.weights, prompt, {.max_tokens = 4}}, 4, in_order, 2);
}

TEST_CASE("a model gives the same tokens whichever way GPUs take to each other") {
  const LoadedModel model(TinyModel::make("llama", 6));
  const Asked asked{model.config, model.weights, prompt, {.max_tokens = 4}};
  for (const int ranks : {2, 3, 4}) {
    check_tokens(asked, ranks, in_order, 1, troika::Peer{});
    check_tokens(asked, ranks, in_order, 1, troika::Nccl{});
  }
  check_tokens(asked, 3, in_order, 3, troika::Peer{});
}

TEST_CASE("decode steps as graphs give the same tokens, whole where no collective waits for the host") {
  const LoadedModel model(TinyModel::make("llama", 6)), experts(TinyModel::make("qwen3_moe"));
  const Asked asked{model.config, model.weights, prompt, {.max_tokens = 6}};
  const auto launches = [&](int ranks, auto transport, StepGraphs graphs, When when) {
    return check_tokens(asked, ranks, {.when = when, .schedule = {Order::random, 5}}, 1, transport, graphs);
  };
  for (const auto when : {When::early, When::late}) {
    // Of five steps, the first is watched.
    CHECK(launches(1, troika::Threads{}, StepGraphs::whole, when) == 4);
    CHECK(launches(3, troika::Peer{}, StepGraphs::whole, when) == 3 * 4);
    CHECK(launches(2, troika::Nccl{}, StepGraphs::whole, when) == 0);
    CHECK(launches(2, troika::Threads{}, StepGraphs::whole, when) == 0);
    // Two blocks of two collectives each, the embedding's before them.
    CHECK(launches(2, troika::Nccl{}, StepGraphs::pieces, when) == 2 * 4 * 6);
    CHECK(launches(4, troika::Threads{}, StepGraphs::pieces, when) == 4 * 4 * 6);
    CHECK(launches(2, troika::Peer{}, StepGraphs::none, when) == 0);
  }
  const Asked of_experts{experts.config, experts.weights, prompt, {.max_tokens = 4}};
  CHECK(check_tokens(of_experts, 2, in_order, 1, troika::Peer{}) == 0);
  CHECK(check_tokens(of_experts, 2, in_order, 1, troika::Peer{}, StepGraphs::pieces) == 0);
  CHECK(check_tokens(of_experts, 2, in_order, 1, troika::Nccl{}, StepGraphs::pieces) > 0);
}

TEST_CASE("quantised models give the same tokens on GPUs") {
  for (const std::string type : {"Q8_0", "Q4_0"}) {
    const troika::test::TempFolder folder;
    const auto file = folder.path() / "model.gguf";
    troika::models::convert_to_gguf(bundled, file, {.type = type});
    const auto config = troika::models::ModelConfig::load(file);
    const auto weights = troika::models::Weights::open(file);
    INFO(type);
    check_tokens({config, weights, prompt, {.max_tokens = 2}}, 2);
  }
}

TEST_CASE("an encoder gives the same vectors on GPUs") {
  const LoadedModel model(TinyModel::make("bert"));
  const auto embed = [&](auto devices) {
    return on_every(std::move(devices), [&](auto& pipeline) {
      const troika::models::Encoder encoder(pipeline, model.config, model.weights);
      return encoder.embed(pipeline, std::span<const std::int32_t>(prompt));
    })[0];
  };
  const auto expected = embed(one_host());
  const Recording recording({.gpus = 2, .schedule = {Order::forward}});
  const auto found = embed(gpus());
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) CHECK(std::abs(found[i] - expected[i]) < 2e-5f);
  CHECK(recording.problems().empty());
  CHECK(recording.live().empty());
}

TEST_CASE("a decode step takes no memory from the driver once it is warm") {
  const LoadedModel model(TinyModel::make("qwen3_moe"));
  const Recording recording({.gpus = 2, .schedule = {Order::forward}});
  const auto ranks = on_every(gpus(), [&](auto& pipeline) {
    const troika::models::Decoder decoder(pipeline, model.config, model.weights);
    auto cache = decoder.make_cache(pipeline.device());
    troika::Sampler sampler(pipeline.communication());
    auto logits = decoder.forward(pipeline, prompt, cache);
    const auto steps = [&](std::uint64_t count) {
      pipeline.communication().barrier();
      for (std::uint64_t i = 0; i < count; ++i) {
        const auto token = sampler(logits, i, pipeline.stream());
        logits = decoder.forward(pipeline, std::span(&token, 1), cache);
      }
      pipeline.communication().barrier();
      return recording.allocations();
    };
    const auto warm = steps(6);
    pipeline.communication().barrier();
    const auto more = steps(10) - warm;
    pipeline.communication().barrier();  // whoever ends gives memory back, which counts too
    return more;
  });
  CHECK(ranks == std::vector<std::int64_t>{0, 0});
}

TEST_CASE("whichever call fails, every rank ends with a named error, and nothing is left") {
  const LoadedModel model(TinyModel::make("llama"));
  const Asked asked{model.config, model.weights, prompt, {.max_tokens = 2}};
  std::int64_t calls = 0;
  {
    const Recording recording({.gpus = 2, .schedule = {Order::forward}});
    (void)answers(gpus(), asked);
    calls = recording.calls();
  }
  REQUIRE(calls > 500);
  std::int64_t failures = 0;
  for (std::int64_t n = 1; n < calls; n += n < 120 ? 1 : 17) {
    INFO("call " << n << " of " << calls);
    Recording recording({.gpus = 2, .schedule = {Order::forward}});
    recording.fail(n);
    try {
      (void)answers(gpus(), asked);
    } catch (const Error& error) {
      ++failures;
      const std::string what = error.what();
      CAPTURE(what);
      CHECK(names_failed_call(what));
    }
    CHECK(recording.failed());
    CHECK(recording.problems().empty());
    CHECK(recording.live().empty());
  }
  CHECK(failures > 100);
}
