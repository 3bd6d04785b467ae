// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/reference_model.hpp>
#include <support/spmd.hpp>
#include <support/temp_folder.hpp>
#include <support/tiny_model.hpp>

#include <troika/models/decoder.hpp>
#include <troika/models/encoder.hpp>
#include <troika/models/files/convert.hpp>
#include <troika/models/generate.hpp>

using troika::Precision;
using troika::models::Decoder;
using troika::models::DecoderOptions;
using troika::models::ModelConfig;
using troika::models::Weights;

namespace {

// More tokens than go through the kernels for few rows.
std::vector<std::int32_t> prompt_of(std::int64_t vocab, int tokens = 40) {
  std::vector<std::int32_t> ids;
  for (int i = 0; i < tokens; ++i) ids.push_back(static_cast<std::int32_t>((37 * i * i + 11 * i + 3) % vocab));
  return ids;
}

struct Run {
  int world = 1, cores_each = 0;
  std::vector<std::size_t> chunks{40};
  Precision precision = Precision::exact;
  DecoderOptions options{};
};

std::string name(const Run& run) {
  std::string text = std::to_string(run.world) + " ranks, " + std::to_string(run.cores_each) + " cores each, chunks";
  for (const auto chunk : run.chunks) text += " " + std::to_string(chunk);
  return text + (run.precision == Precision::exact ? ", exact" : ", fast");
}

// The logits of every token, one after the other, read in chunks on invariant devices.
std::vector<float> logits_of(const ModelConfig& config, const Weights& weights, const Run& run) {
  const auto prompt = prompt_of(config.vocab_size);
  const auto ranks = spmd(
      run.world, troika::StaticAllocation{},
      [&](auto& pipeline) {
        const Decoder decoder(pipeline, config, weights, run.options);
        auto cache = decoder.make_cache(pipeline.device());
        std::vector<float> all;
        std::size_t at = 0;
        for (const auto chunk : run.chunks) {
          auto logits =
              decoder.forward(pipeline, std::span(prompt).subspan(at, chunk), cache, static_cast<std::int64_t>(chunk));
          const auto whole = pipeline.run(std::move(logits), troika::to<troika::Replicate>);
          all.insert(all.end(), whole.values().begin(), whole.values().end());
          at += chunk;
        }
        return all;
      },
      {.precision = run.precision, .invariant = true}, run.cores_each);
  for (const auto& rank : ranks) REQUIRE(rank == ranks[0]);
  return ranks[0];
}

std::vector<Run> runs() {
  const std::vector<std::size_t> one_by_one(40, 1);
  return {{1, 0, {40}}, {1, 0, one_by_one}, {2, 0, {40}}, {2, 0, {3, 33, 4}}, {4, 0, {40}},   {4, 0, one_by_one},
          {8, 0, {40}}, {8, 0, {11, 29}},   {1, 2, {40}}, {1, 2, one_by_one}, {2, 2, {38, 2}}};
}

// All runs give the bits of the first, which are returned.
std::vector<float> check_runs(const ModelConfig& config, const Weights& weights, Precision precision,
                              DecoderOptions options = {}) {
  std::vector<float> first;
  for (auto run : runs()) {
    run.precision = precision;
    run.options = options;
    const auto logits = logits_of(config, weights, run);
    if (first.empty()) first = logits;
    INFO(name(run));
    CHECK(logits == first);
  }
  return first;
}

}  // namespace

TEST_CASE("invariant devices give the same bits for every world, team and chunking, and the right ones") {
  for (const std::string type : {"llama", "mistral", "qwen2", "qwen3", "gemma2", "qwen3_moe"}) {
    const auto tiny = TinyModel::make(type, 21);
    const LoadedModel model(tiny);
    INFO(type);
    const auto logits = check_runs(model.config, model.weights, Precision::exact);
    const auto reference = ReferenceModel(tiny).logits(prompt_of(tiny.vocab));
    for (std::size_t t : {std::size_t{0}, std::size_t{7}, std::size_t{39}}) {
      const auto vocab = static_cast<std::size_t>(tiny.vocab);
      CHECK(distance(std::span(logits).subspan(t * vocab, vocab), reference[t]) < 2e-5);
    }
  }
}

TEST_CASE("invariance holds for weights of 16 bits, exact and fast, and for every type of cache") {
  for (const std::string type : {"llama", "gemma2", "qwen3_moe"}) {
    for (const auto dtype : {troika::DType::f16, troika::DType::bf16}) {
      const LoadedModel model(TinyModel::make(type, 22, dtype));
      INFO(type << " " << troika::to_string(dtype));
      check_runs(model.config, model.weights, Precision::exact);
      check_runs(model.config, model.weights, Precision::fast);
    }
  }
  const LoadedModel model(TinyModel::make("mistral", 23));
  for (const auto kv_type : troika::kv_types) {
    INFO(to_string(kv_type));
    check_runs(model.config, model.weights, Precision::exact, {.kv_type = kv_type});
  }
  check_runs(model.config, model.weights, Precision::exact, {.sequence_parallel = true});
}

TEST_CASE("the bundled model gives the same bits on 1, 2, 4 and 8 ranks, as it is and quantised") {
  const std::string folder = TROIKA_SOURCE_DIR "/examples/model";
  const troika::test::TempFolder made;
  check_runs(ModelConfig::load(folder), Weights::open(folder), Precision::fast);
  for (const std::string type : {"Q8_0", "Q4_0", "Q5_1"}) {
    const auto file = made.path() / (type + ".gguf");
    (void)troika::models::convert_to_gguf(folder, file, {.type = type});
    INFO(type);
    for (const auto precision : {Precision::fast, Precision::exact}) {
      check_runs(ModelConfig::load(file), Weights::open(file), precision);
    }
  }
}

TEST_CASE("a token has the same bits beside other sequences as alone") {
  const LoadedModel model(TinyModel::make("qwen3", 24));
  const auto ids = prompt_of(model.config.vocab_size);
  std::vector<float> alone;
  for (const int world : {1, 2, 8}) {
    for (const int others : {0, 1, 20}) {
      const auto ranks = spmd(
          world, troika::StaticAllocation{},
          [&](auto& pipeline) {
            const Decoder decoder(pipeline, model.config, model.weights);
            auto memory = decoder.make_memory(pipeline.device(), others + 1);
            std::vector<std::int32_t> pages;
            for (int i = 0; i <= others; ++i) pages.push_back(i);
            std::vector<float> last;
            std::int64_t at = 0;
            for (const std::int64_t tokens : {5, 1, 9, 1}) {
              troika::models::Batch batch;
              for (int i = 0; i <= others; ++i) {
                const auto some = std::span(ids).subspan(static_cast<std::size_t>(at + (i + 1) % 3),
                                                         static_cast<std::size_t>(tokens));
                batch.add(i == others
                              ? std::span(ids).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(tokens))
                              : some,
                          at, std::span(pages).subspan(static_cast<std::size_t>(i), 1));
              }
              const auto whole = pipeline.run(decoder.forward(pipeline, batch, memory), troika::to<troika::Replicate>);
              const auto row = whole.values().last(static_cast<std::size_t>(model.config.vocab_size));
              last.insert(last.end(), row.begin(), row.end());
              at += tokens;
            }
            return last;
          },
          {.precision = Precision::exact, .invariant = true});
      if (alone.empty()) alone = ranks[0];
      INFO(world << " ranks, " << others << " others");
      CHECK(ranks[0] == alone);
    }
  }
}

TEST_CASE("an encoder, which has biases after sums over ranks, gives the same bits on invariant devices") {
  const LoadedModel model(TinyModel::make("bert", 25));
  const auto ids = prompt_of(model.config.vocab_size);
  std::vector<float> first;
  for (const int world : {1, 2, 4, 8}) {
    for (const int cores_each : {0, 2}) {
      const auto ranks = spmd(
          world, troika::StaticAllocation{},
          [&](auto& pipeline) {
            const troika::models::Encoder encoder(pipeline, model.config, model.weights);
            const auto hidden = encoder.forward(pipeline, ids);
            return std::vector<float>(hidden.values().begin(), hidden.values().end());
          },
          {.precision = Precision::exact, .invariant = true}, cores_each);
      if (first.empty()) first = ranks[0];
      INFO(world << " ranks, " << cores_each << " cores each");
      for (const auto& hidden : ranks) CHECK(hidden == first);
    }
  }
}

TEST_CASE("invariant devices refuse other worlds and shares in one sentence") {
  const LoadedModel model(TinyModel::make("llama"));
  const auto load = [&](int world, troika::StaticAllocation allocation) {
    (void)spmd(world, std::move(allocation),
               [&](auto& pipeline) { return Decoder(pipeline, model.config, model.weights).context(); },
               {.precision = Precision::exact, .invariant = true});
  };
  using Catch::Matchers::ContainsSubstring;
  CHECK_THROWS_WITH(load(3, troika::StaticAllocation{}), ContainsSubstring("1, 2, 4 or 8 ranks, not on 3"));
  CHECK_THROWS_WITH(load(2, troika::StaticAllocation{uneven_weights(2)}), ContainsSubstring("equal shares"));
}
