// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <cuda/runtime/recorder.hpp>
#include <serving/answers.hpp>
#include <support/catch.hpp>
#include <support/loaded_model.hpp>

#include <troika/device/cuda/device.hpp>
#include <troika/serving/cuda_engine.hpp>

using Catch::Matchers::ContainsSubstring;
using troika::recording::Recording;
using troika::serving::EngineOptions;
using troika::serving::Finish;
using troika::serving::GenerationRequest;
using troika::serving::make_engine;
using Order = troika::shim::Schedule::Order;

namespace {

// Threads in an order that caches like.
const troika::recording::Options in_order{.schedule = {Order::forward}};

std::vector<troika::CudaDevice> gpus(int count) {
  auto all = troika::cuda_devices({.precision = troika::Precision::exact});
  return {all.begin(), all.begin() + count};
}

// As they may come to a server at once: likeliest and drawn, with penalties, of a grammar, told how likely they are,
// and two that begin alike.
std::vector<GenerationRequest> requests() {
  std::vector<std::string> spelled;
  for (char c = ' '; c <= '~'; ++c) spelled.emplace_back(1, c);
  for (const char* piece : {"{\"", "\": ", "\"}", "true", "\", \"", ""}) spelled.emplace_back(piece);
  const troika::models::Constraint list{
      troika::models::Grammar::of_schema(R"({"type":"array","items":{"enum":["red",7,null]},"maxItems":2})"),
      std::make_shared<const troika::models::TokenBytes>(spelled)};

  std::vector<GenerationRequest> all(6);
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::int32_t id = 0; id < 3 + 2 * static_cast<std::int32_t>(i); ++id)
      all[i].prompt.push_back((7 * id + 11 * static_cast<std::int32_t>(i)) % 101);
    all[i].max_tokens = 4;
  }
  all[1].sampling = {.temperature = 1, .top_k = 9, .seed = 3, .repeat_penalty = 1.5f};
  all[2].sampling = {.temperature = 1.2f, .top_p = 0.8f, .min_p = 0.01f, .seed = 4};
  all[2].logprobs = 3;
  all[3].constraint = list;
  all[3].ends = {100};
  all[3].max_tokens = 30;
  all[4].prompt.assign(140, 5);
  all[5].prompt.assign(150, 5);
  all[5].logprobs = 0;
  return all;
}

struct Told {
  std::vector<Tokens> tokens;
  std::vector<std::vector<troika::TokenLogprobs>> logprobs;
};

Told all_of(troika::serving::Engine& engine) {
  std::vector<Answer> answers;
  for (const auto& request : requests()) answers.emplace_back(engine, request);
  Told told;
  for (auto& answer : answers) {
    CHECK(answer.end().error == "");
    told.tokens.push_back(answer.tokens());
    told.logprobs.push_back(answer.logprobs());
  }
  return told;
}

EngineOptions options(troika::Log log = troika::Log::silent()) {
  return {.kv_type = troika::KvType::f32, .log = std::move(log), .self_check = std::chrono::seconds(0)};
}

const Told& on_host() {
  static const Told told = [] {
    const LoadedModel model(long_model("llama"));
    return all_of(*make_engine(exact_devices(1), model.folder.path(), options()));
  }();
  return told;
}

}  // namespace

TEST_CASE("requests at once get the same tokens from an engine on GPUs as on the host") {
  const LoadedModel model(long_model("llama"));
  for (const int count : {1, 2, 3}) {
    INFO(count << " GPUs");
    const Recording recording(in_order);
    {
      const auto engine = make_engine(gpus(count), model.folder.path(), options());
      const auto told = all_of(*engine);
      CHECK(told.tokens == on_host().tokens);
      for (const auto& [mine, expected] :
           {std::pair(told.logprobs[2], on_host().logprobs[2]), std::pair(told.logprobs[5], on_host().logprobs[5])}) {
        REQUIRE(mine.size() == expected.size());
        for (std::size_t i = 0; i < mine.size(); ++i) {
          CHECK(std::abs(mine[i].drawn - expected[i].drawn) < 1e-4f);
          REQUIRE(mine[i].likeliest.size() == expected[i].likeliest.size());
          for (std::size_t k = 0; k < mine[i].likeliest.size(); ++k)
            CHECK(mine[i].likeliest[k].id == expected[i].likeliest[k].id);
        }
      }
      // What was read for others is not read again.
      CHECK(Answer(*engine, requests()[5]).end().reused_tokens == 128);
      const auto load = engine->load();
      CHECK(load.devices == count);
      CHECK(load.memory_bytes > 0);
      CHECK(load.gpu_bytes == load.memory_bytes);
      CHECK(engine->device_states()[0].name == "cuda:0");
    }
    CHECK(recording.launches() > 0);
    CHECK(recording.problems().empty());
    CHECK(recording.live().empty());
  }
}

TEST_CASE("when a GPU fails, or a call on it, answers go on where they were on those that are left") {
  const LoadedModel model(long_model("llama"));
  for (const bool by_call : {false, true}) {
    Recording recording(in_order);
    std::string told;
    auto with = options(troika::Log([&](troika::LogLevel, std::string_view text) { told += text; }));
    std::atomic<bool> failed{false};
    with.before_step = [&](int device, std::uint64_t step) {
      if (device != 1 || step < 4 || failed.exchange(true)) return;
      if (!by_call) throw std::runtime_error("the GPU has fallen off the bus");
      recording.fail(1);
    };
    {
      const auto engine = make_engine(gpus(3), model.folder.path(), with);
      CHECK(all_of(*engine).tokens == on_host().tokens);
      CHECK(failed);
      CHECK(engine->load().devices == 2);
      CHECK(engine->load().recoveries == 1);
      CHECK(std::ranges::count(engine->device_states(), true, &troika::serving::DeviceState::lost) == 1);
    }
    CHECK_THAT(told, ContainsSubstring(" failed and is left out; 2 devices are left: "));
    CHECK_THAT(told, ContainsSubstring(by_call ? "cuda" : "cuda:1 failed"));
    CHECK(recording.problems().empty());
    CHECK(recording.live().empty());
  }
}

TEST_CASE("a GPU without the memory for its part of a model is one error that names it") {
  const LoadedModel model(long_model("llama"));
  const Recording recording(in_order);
  auto devices = gpus(2);
  devices[1] = troika::CudaDevice(1, {.memory_limit = devices[1].memory_reserved() + (64 << 10)}, 1);
  CHECK_THROWS_WITH(make_engine(std::move(devices), model.folder.path(), options()),
                    ContainsSubstring("out of memory") && ContainsSubstring("left for GPU 1"));
  CHECK(recording.live().empty());
}

TEST_CASE("a warm engine takes no memory from the driver, and gives none back") {
  const LoadedModel model(long_model("llama"));
  const Recording recording(in_order);
  const auto engine = make_engine(gpus(2), model.folder.path(), options());
  const auto ask = [&] {
    for (const auto& request : requests()) CHECK(Answer(*engine, request).end().error == "");
    return recording.allocations();
  };
  ask();
  const auto warm = ask();  // the beginnings of two texts are there since the first time
  CHECK(ask() == warm);
}

TEST_CASE("GPUs and their links are checked while no request runs") {
  const LoadedModel model(long_model("llama"));
  const Recording recording(in_order);
  auto with = options();
  with.self_check = std::chrono::seconds(1);
  const auto engine = make_engine(gpus(3), model.folder.path(), with);
  troika::serving::SelfCheck check;
  while (check.names.empty()) check = (std::this_thread::yield(), engine->self_check());
  CHECK(check.names == std::vector<std::string>{"cuda:0", "cuda:1", "cuda:2"});
  CHECK(check.links.size() == 3);
  CHECK(check.all_reduce_seconds > 0);
}
