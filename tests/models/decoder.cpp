// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/reference_model.hpp>
#include <support/spmd.hpp>
#include <support/tiny_model.hpp>

#include <troika/models/decoder.hpp>
#include <troika/models/generate.hpp>

using troika::models::Decoder;
using troika::models::ModelConfig;
using troika::models::Weights;

namespace {

const std::vector<std::int32_t> prompt{1, 17, 42, 5, 99, 63, 8, 20, 77};

// The logits of the last token of each prefix that `chunks` of the prompt end on, gathered from the ranks' shards.
std::vector<std::vector<float>> split_logits(const LoadedModel& model, int world, troika::StaticAllocation allocation,
                                             const std::vector<std::size_t>& chunks,
                                             troika::models::DecoderOptions options = {}) {
  const auto ranks = spmd(world, allocation, [&](auto& pipeline) {
    const Decoder decoder(pipeline, model.config, model.weights, options);
    auto cache = decoder.make_cache(pipeline.device());
    std::vector<std::vector<float>> results;
    std::size_t at = 0;
    for (const auto chunk : chunks) {
      auto logits = decoder.forward(pipeline, std::span(prompt).subspan(at, chunk), cache);
      const auto whole = pipeline.run(std::move(logits), troika::to<troika::Replicate>);
      results.emplace_back(whole.values().begin(), whole.values().end());
      at += chunk;
    }
    return results;
  });
  for (const auto& rank : ranks) REQUIRE(rank == ranks[0]);  // the same bits everywhere
  return ranks[0];
}

}  // namespace

TEST_CASE("a split decoder gives the logits of the reference, whatever the model and the world") {
  for (const std::string type : {"llama", "mistral", "qwen2", "qwen3", "gemma2", "qwen3_moe"}) {
    const auto tiny = TinyModel::make(type);
    const LoadedModel model(tiny);
    const auto reference = ReferenceModel(tiny).logits(prompt);
    for (const int world : test_worlds) {
      INFO(type << " on " << world << " ranks");
      const auto at_once = split_logits(model, world, troika::StaticAllocation{}, {prompt.size()});
      CHECK(distance(at_once[0], reference.back()) < 2e-5);
      // A prompt in pieces, then token by token, fills the cache just the same.
      const auto in_steps = split_logits(model, world, troika::StaticAllocation{}, {4, 3, 1, 1});
      CHECK(distance(in_steps[0], reference[3]) < 2e-5);
      CHECK(distance(in_steps[1], reference[6]) < 2e-5);
      CHECK(distance(in_steps[2], reference[7]) < 2e-5);
      CHECK(distance(in_steps[3], reference[8]) < 2e-5);
    }
  }
}

TEST_CASE("ranks meet twice a block and once for the embedding, whatever the blocks have") {
  for (const std::string type : {"llama", "qwen3", "gemma2", "qwen3_moe"}) {
    const LoadedModel model(TinyModel::make(type));
    for (const int world : {1, 2, 3, 5}) {
      const auto ranks = spmd(world, [&](auto& pipeline) {
        const Decoder decoder(pipeline, model.config, model.weights);
        auto cache = decoder.make_cache(pipeline.device());
        std::vector<std::uint64_t> collectives;
        for (const std::size_t tokens : {std::size_t{5}, std::size_t{1}}) {
          const auto before = pipeline.communication().sequence();
          (void)decoder.forward(pipeline, std::span(prompt).first(tokens), cache);
          collectives.push_back(pipeline.communication().sequence() - before);
        }
        return collectives;
      });
      INFO(type << " on " << world << " ranks");
      const auto expected = static_cast<std::uint64_t>(2 * model.config.layers + 1);
      for (const auto& rank : ranks) CHECK(rank == std::vector<std::uint64_t>{expected, expected});
    }
  }
}

TEST_CASE("uneven shares change who computes, not what") {
  for (const std::string type : {"llama", "qwen3", "gemma2", "qwen3_moe"}) {
    const auto tiny = TinyModel::make(type, 2);
    const LoadedModel model(tiny);
    const auto reference = ReferenceModel(tiny).logits(prompt);
    for (const int world : {2, 3, 4, 5, 8}) {
      INFO(type << " on " << world << " uneven ranks");
      const auto logits =
          split_logits(model, world, troika::StaticAllocation{uneven_weights(world)}, {prompt.size() - 1, 1});
      CHECK(distance(logits.back(), reference.back()) < 2e-5);
    }
  }
}

TEST_CASE("sequence parallelism gives the same logits") {
  const auto tiny = TinyModel::make("qwen2", 3);
  const LoadedModel model(tiny);
  const auto reference = ReferenceModel(tiny).logits(prompt);
  for (const int world : test_worlds) {
    const auto logits = split_logits(model, world, troika::StaticAllocation{}, {7, 2}, {.sequence_parallel = true});
    INFO(world << " ranks");
    CHECK(distance(logits[0], reference[6]) < 2e-5);
    CHECK(distance(logits[1], reference[8]) < 2e-5);  // fewer tokens than ranks in the larger worlds
  }
}

TEST_CASE("weights in f16 and bf16 are used as the file rounds them") {
  for (const auto dtype : {troika::DType::f16, troika::DType::bf16}) {
    const auto tiny = TinyModel::make("llama", 4, dtype);
    const LoadedModel model(tiny);
    const auto reference = ReferenceModel(tiny).logits(prompt);
    for (const int world : {1, 3, 4}) {
      INFO(troika::to_string(dtype) << " on " << world << " ranks");
      CHECK(distance(split_logits(model, world, troika::StaticAllocation{}, {prompt.size()})[0], reference.back()) <
            2e-5);
    }
  }
}

TEST_CASE("a cache of 16 or 8 bits changes logits by its rounding, on every world, and takes less memory") {
  for (const std::string type : {"llama", "mistral", "qwen3"}) {
    const auto tiny = TinyModel::make(type, 9);
    const LoadedModel model(tiny);
    const auto reference = ReferenceModel(tiny).logits(prompt);
    for (const auto& [kv_type, bound] :
         {std::pair{troika::KvType::bf16, 0.03}, {troika::KvType::f16, 0.004}, {troika::KvType::q8, 0.03}}) {
      for (const int world : test_worlds) {
        INFO(type << ", " << to_string(kv_type) << " on " << world << " ranks");
        const auto logits = split_logits(model, world, troika::StaticAllocation{}, {4, 3, 1, 1}, {.kv_type = kv_type});
        CHECK(distance(logits[0], reference[3]) < bound);
        CHECK(distance(logits[3], reference[8]) < bound);
        CHECK(distance(logits[3], reference[8]) > 1e-6);  // it was asked for
      }
    }
  }
  const LoadedModel model(TinyModel::make("llama"));
  std::map<troika::KvType, std::int64_t> bytes;
  for (const auto kv_type : troika::kv_types) {
    for (const auto rank : spmd(2, [&](auto& pipeline) {
           const Decoder decoder(pipeline, model.config, model.weights, {.kv_type = kv_type});
           return decoder.make_cache(pipeline.device()).bytes();
         })) {
      bytes[kv_type] += rank;
    }
  }
  CHECK(bytes[troika::KvType::f32] == 2 * 2 * 64 * 2 * 8 * 4);  // keys and values, layers, context, heads, head_dim
  CHECK(bytes[troika::KvType::bf16] * 2 == bytes[troika::KvType::f32]);
  CHECK(bytes[troika::KvType::f16] * 2 == bytes[troika::KvType::f32]);
  CHECK(bytes[troika::KvType::q8] * 32 == bytes[troika::KvType::f32] * 12);  // 8 + 4 bytes for each head instead of 32
}

TEST_CASE("every world draws the tokens of the reference") {
  const auto tiny = TinyModel::make("mistral", 5);
  const LoadedModel model(tiny);
  const auto expected = ReferenceModel(tiny).greedy(prompt, 12, 2);
  for (const int world : test_worlds) {
    const auto ranks = spmd(world, [&](auto& pipeline) {
      const Decoder decoder(pipeline, model.config, model.weights);
      auto cache = decoder.make_cache(pipeline.device());
      return troika::models::generate(pipeline, decoder, cache, prompt, {.max_tokens = 12});
    });
    for (const auto& tokens : ranks) CHECK(tokens == expected);
  }
}

TEST_CASE("sampled tokens are the same on every rank and for every world") {
  const auto tiny = TinyModel::make("llama", 6);
  const LoadedModel model(tiny);
  const troika::SamplingOptions choices[] = {{.temperature = 1.5f, .seed = 11},
                                             {.temperature = 0.9f, .top_k = 7, .seed = 12},
                                             {.temperature = 1.2f, .top_p = 0.8f, .seed = 13},
                                             {.temperature = 1.2f, .top_k = 20, .top_p = 0.7f, .seed = 14}};
  for (const auto& sampling : choices) {
    std::vector<std::int32_t> first;
    for (const int world : test_worlds) {
      const auto ranks = spmd(world, [&](auto& pipeline) {
        const Decoder decoder(pipeline, model.config, model.weights);
        auto cache = decoder.make_cache(pipeline.device());
        return troika::models::generate(pipeline, decoder, cache, prompt, {.max_tokens = 20, .sampling = sampling});
      });
      if (world == 1) first = ranks[0];
      CHECK_FALSE(first.empty());
      for (const auto& tokens : ranks) CHECK(tokens == first);
    }
  }
}

TEST_CASE("what does not fit is refused before anything is computed") {
  const auto tiny = TinyModel::make("llama");
  const LoadedModel model(tiny);
  const auto message_of = [&](auto attempt) {
    const auto ranks = spmd(2, [&](auto& pipeline) {
      const Decoder decoder(pipeline, model.config, model.weights, {.context = 16});
      auto cache = decoder.make_cache(pipeline.device());
      try {
        attempt(pipeline, decoder, cache);
      } catch (const troika::Error& error) {
        return std::string(error.what());
      }
      return std::string();
    });
    CHECK(ranks[0] == ranks[1]);
    return ranks[0];
  };
  const std::vector<std::int32_t> long_prompt(16, 3), wrong{1, 101}, negative{-1};
  const auto contains = [](const std::string& text) { return Catch::Matchers::ContainsSubstring(text); };
  CHECK_THAT(message_of([&](auto& p, auto& d, auto& c) { (void)generate(p, d, c, long_prompt); }),
             contains("does not fit a context of 16"));
  CHECK_THAT(message_of([&](auto& p, auto& d, auto& c) { (void)d.forward(p, std::vector<std::int32_t>(17, 3), c); }),
             contains("context of 16"));
  CHECK_THAT(message_of([&](auto& p, auto& d, auto& c) { (void)d.forward(p, wrong, c); }),
             contains("vocabulary of 101"));
  CHECK_THAT(message_of([&](auto& p, auto& d, auto& c) { (void)d.forward(p, negative, c); }), contains("-1"));
  CHECK_THAT(message_of([&](auto& p, auto& d, auto& c) { (void)generate(p, d, c, std::vector<std::int32_t>{}); }),
             contains("0 tokens"));
}

TEST_CASE("weights that hold NaN end in one error, not in a token") {
  auto tiny = TinyModel::make("llama");
  tiny.tensors.at("model.layers.1.mlp.up_proj.weight").data[5] = NAN;
  const LoadedModel model(tiny);
  CHECK_THROWS_WITH(spmd(3,
                         [&](auto& pipeline) {
                           const Decoder decoder(pipeline, model.config, model.weights);
                           auto cache = decoder.make_cache(pipeline.device());
                           return troika::models::generate(pipeline, decoder, cache, prompt).size();
                         }),
                    Catch::Matchers::ContainsSubstring("NaN"));
}

TEST_CASE("too little memory is told before anything is loaded, with the figures") {
  const auto tiny = TinyModel::make("llama");
  const LoadedModel model(tiny);
  CHECK_NOTHROW(troika::models::check_memory(model.weights, model.weights.total_bytes()));
  try {
    troika::models::check_memory(model.weights, model.weights.total_bytes() - 1);
    FAIL("no error");
  } catch (const troika::Error& error) {
    CHECK(error.fault() == troika::Fault::out_of_memory);
    CHECK_THAT(error.what(), Catch::Matchers::ContainsSubstring(" MB of memory are left"));
  }
}

TEST_CASE("a rank that runs out of memory ends the run with its own error") {
  const auto tiny = TinyModel::make("llama");
  const LoadedModel model(tiny);
  std::vector<troika::HostDevice> devices;
  for (int i = 0; i < 3; ++i)
    devices.emplace_back(i, troika::HostOptions{.memory_limit = i == 1 ? std::size_t{30000} : SIZE_MAX});
  troika::TaskScheduler scheduler{std::move(devices), troika::StaticAllocation{}};
  try {
    scheduler.run_on_every_device([&](auto& rank) {
      troika::Communication communication{rank, troika::Threads{}};
      troika::DataSync sync{communication};
      troika::Pipeline pipeline{scheduler, sync, communication};
      const Decoder decoder(pipeline, model.config, model.weights);
      auto cache = decoder.make_cache(pipeline.device());
      (void)troika::models::generate(pipeline, decoder, cache, prompt);
    });
    FAIL("no error");
  } catch (const troika::Error& error) {
    CHECK(error.fault() == troika::Fault::out_of_memory);
  }
}
