// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
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

// As they may come to a server at once: likeliest and drawn, with penalties, told how likely they are, of a grammar;
// and two that are long and begin alike.
constexpr std::size_t short_ones = 4, all_of_them = 6;
std::vector<GenerationRequest> requests(std::size_t count) {
  std::vector<std::string> spelled;
  for (char c = ' '; c <= '~'; ++c) spelled.emplace_back(1, c);
  for (const char* piece : {"{\"", "\": ", "\"}", "true", "\", \"", ""}) spelled.emplace_back(piece);
  const troika::models::Constraint list{
      troika::models::Grammar::of_schema(R"({"type":"array","items":{"enum":["red",7,null]},"maxItems":2})"),
      std::make_shared<const troika::models::TokenBytes>(spelled)};

  std::vector<GenerationRequest> all(all_of_them);
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
  all.resize(count);
  return all;
}

struct Told {
  std::vector<Tokens> tokens;
  std::vector<std::vector<troika::TokenLogprobs>> logprobs;
};

Told answers_of(troika::serving::Engine& engine, std::size_t count) {
  std::vector<Answer> answers;
  for (const auto& request : requests(count)) answers.emplace_back(engine, request);
  Told told;
  for (auto& answer : answers) {
    CHECK(answer.end().error == "");
    told.tokens.push_back(answer.tokens());
    told.logprobs.push_back(answer.logprobs());
  }
  return told;
}

EngineOptions options(troika::Log log = troika::Log::silent()) {
  return {.kv_type = troika::KvType::f32,
          .step_tokens = 64,
          .mixed_tokens = 64,
          .most_running = 8,
          .log = std::move(log),
          .self_check = std::chrono::seconds(0)};
}

Told on_host(std::size_t count) {
  const LoadedModel model(long_model("llama"));
  return answers_of(*make_engine(exact_devices(1), model.folder.path(), options()), count);
}

}  // namespace

TEST_CASE("requests at once get the same tokens from an engine on GPUs as on the host") {
  const LoadedModel model(long_model("llama"));
  const auto expected = on_host(all_of_them);
  for (const int count : {1, 2, 3}) {
    INFO(count << " GPUs");
    const Recording recording(in_order);
    {
      const auto engine = make_engine(gpus(count), model.folder.path(), options());
      const std::size_t asked = count == 2 ? all_of_them : short_ones;
      const auto told = answers_of(*engine, asked);
      for (std::size_t request = 0; request < asked; ++request) {
        CHECK(told.tokens[request] == expected.tokens[request]);
        const auto &mine = told.logprobs[request], &others = expected.logprobs[request];
        REQUIRE(mine.size() == others.size());
        for (std::size_t i = 0; i < mine.size(); ++i) {
          CHECK(std::abs(mine[i].drawn - others[i].drawn) < 1e-4f);
          REQUIRE(mine[i].likeliest.size() == others[i].likeliest.size());
          for (std::size_t k = 0; k < mine[i].likeliest.size(); ++k)
            CHECK(mine[i].likeliest[k].id == others[i].likeliest[k].id);
        }
      }
      CHECK(told.logprobs[2].size() == 4);
      // What was read for others is not read again.
      if (count == 2) CHECK(Answer(*engine, requests(all_of_them)[5]).end().reused_tokens == 128);
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

TEST_CASE("an engine of an encoder on GPUs gives the same vectors as on the host") {
  const LoadedModel model(TinyModel::make("bert"));
  const auto embed = [&](troika::serving::Engine& engine) {
    Answer first(engine, {.prompt = {1, 17, 42, 5}}), second(engine, {.prompt = {99, 63}});
    return std::vector{first.end().embedding, second.end().embedding};
  };
  const auto expected = embed(*make_engine(exact_devices(1), model.folder.path(), options()));
  const Recording recording(in_order);
  const auto found = embed(*make_engine(gpus(2), model.folder.path(), options()));
  for (std::size_t text = 0; text < 2; ++text) {
    REQUIRE(found[text].size() == expected[text].size());
    for (std::size_t i = 0; i < found[text].size(); ++i) CHECK(std::abs(found[text][i] - expected[text][i]) < 2e-5f);
  }
  CHECK(recording.problems().empty());
  CHECK(recording.live().empty());
}

TEST_CASE("when a GPU fails, or a call on it, answers go on where they were on those that are left") {
  const LoadedModel model(long_model("llama"));
  const auto expected = on_host(short_ones).tokens;
  for (const bool by_call : {false, true}) {
    const int count = by_call ? 2 : 3;
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
      const auto engine = make_engine(gpus(count), model.folder.path(), with);
      CHECK(answers_of(*engine, short_ones).tokens == expected);
      CHECK(failed);
      CHECK(engine->load().devices == count - 1);
      CHECK(engine->load().recoveries == 1);
      CHECK(std::ranges::count(engine->device_states(), true, &troika::serving::DeviceState::lost) == 1);
    }
    CHECK_THAT(told,
               ContainsSubstring(" failed and is left out; " + std::to_string(count - 1) + " devices are left: "));
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

TEST_CASE("steps of an engine on GPUs take no memory from the driver, and give none back") {
  const LoadedModel model(long_model("llama"));
  const Recording recording(in_order);
  const auto engine = make_engine(gpus(2), model.folder.path(), options());
  const auto loaded = recording.allocations();
  answers_of(*engine, all_of_them);
  CHECK(recording.allocations() == loaded);
}

TEST_CASE("GPUs and their links are checked while no request runs") {
  const LoadedModel model(long_model("llama"));
  const Recording recording(in_order);
  auto with = options();
  with.self_check = std::chrono::seconds(1);
  const auto engine = make_engine(gpus(2), model.folder.path(), with);
  troika::serving::SelfCheck check;
  while (check.names.empty()) check = (std::this_thread::yield(), engine->self_check());
  CHECK(check.names == std::vector<std::string>{"cuda:0", "cuda:1"});
  CHECK(check.links.size() == 1);
  CHECK(check.all_reduce_seconds > 0);
}
