// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/reference_model.hpp>
#include <support/tiny_model.hpp>

#include <troika/device/cuda/cuda.hpp>
#include <troika/models/decoder.hpp>
#include <troika/models/encoder.hpp>
#include <troika/models/generate.hpp>
#include <troika/troika.hpp>

#include "mixed_ranks.hpp"
#include "on_gpu.hpp"

using namespace troika::test;
using troika::Error;
using troika::Replicate;
using troika::to;
using troika::recording::Recording;

namespace {

using Tokens = std::vector<std::int32_t>;

const Tokens prompt{1, 17, 42, 5, 99, 63, 8, 20, 77};

struct Answer {
  Tokens tokens;
  Values logits;  // of the prompt's last token
};
auto answer(const troika::models::ModelConfig& config, const troika::models::Weights& weights,
            troika::models::GenerateOptions options, troika::models::DecoderOptions decoder_options = {}) {
  return [&, options, decoder_options](auto& pipeline) -> Answer {
    const troika::models::Decoder decoder(pipeline, config, weights, decoder_options);
    auto cache = decoder.make_cache(pipeline.device());
    const auto logits = pipeline.run(decoder.forward(pipeline, prompt, cache), to<Replicate>);
    cache.truncate(0);
    return {generate(pipeline, decoder, cache, prompt, options), values_of<float>(pipeline, logits)};
  };
}

}  // namespace

TEST_CASE("models of each kind give on GPUs and groups of cores what the reference gives") {
  const auto check = [](const std::string& type, const Mix& mix, troika::models::DecoderOptions options = {}) {
    INFO(type);
    const auto tiny = TinyModel::make(type);
    const LoadedModel model(tiny);
    const auto ask = answer(model.config, model.weights, {.max_tokens = 4}, options);
    const auto tokens = on_host(ask).tokens;
    const auto logits = ReferenceModel(tiny).logits(prompt).back();
    on_mix(mix, ask, [&](const Answer& found) {
      CHECK(found.tokens == tokens);
      CHECK(distance(found.logits, logits) < 2e-5);
    });
  };
  for (const auto& mix : mixes) check("llama", mix);
  check("llama", mixes[1], {.sequence_parallel = true});
  for (const auto* type : {"gemma2", "qwen3_moe"}) check(type, mixes[2]);
}

TEST_CASE("every rank of GPUs and groups of cores draws the token that one device draws") {
  const LoadedModel model(TinyModel::make("llama", 5));
  for (const troika::SamplingOptions& sampling : {troika::SamplingOptions{.temperature = 1, .top_k = 9, .seed = 3},
                                                  {.temperature = 1.2f, .top_p = 0.8f, .min_p = 0.01f, .seed = 4}}) {
    const auto drawn = answer(model.config, model.weights, {.max_tokens = 6, .sampling = sampling});
    const auto expected = on_host(drawn).tokens;
    on_mix(mixes[1], drawn, [&](const Answer& found) { CHECK(found.tokens == expected); });
  }
}

TEST_CASE("the bundled model gives the same tokens on GPUs and groups of cores as on the host") {
  const std::filesystem::path bundled = TROIKA_SOURCE_DIR "/examples/model";
  const auto config = troika::models::ModelConfig::load(bundled);
  const auto weights = troika::models::Weights::open(bundled);
  const auto ask = answer(config, weights, {.max_tokens = 3});
  const auto expected = on_host(ask).tokens;
  REQUIRE(expected.size() == 3);
  for (const auto& mix : {mixes[1], mixes[3]})
    on_mix(mix, ask, [&](const Answer& found) { CHECK(found.tokens == expected); });
}

TEST_CASE("an encoder gives the same bits to GPUs and groups of cores, near those of the reference") {
  const auto tiny = TinyModel::make("bert");
  const LoadedModel model(tiny);
  const auto rows = ReferenceModel(tiny).hidden_state(prompt);
  std::vector<double> expected;
  for (const auto& row : rows) expected.insert(expected.end(), row.begin(), row.end());
  const auto encode = [&](auto& pipeline) {
    const troika::models::Encoder encoder(pipeline, model.config, model.weights);
    const std::span<const std::int32_t> text(prompt);
    const auto hidden = encoder.forward(pipeline, std::span(&text, 1));
    pipeline.sync().verify(hidden, pipeline.stream(), "hidden state");
    return values_of<float>(pipeline, hidden);
  };
  for (const auto& mix : {mixes[0], mixes[2]})
    on_mix(mix, encode, [&](const Values& found) { CHECK(distance(found, expected) < 2e-5); });
}

TEST_CASE("whichever call of CUDA fails, both kinds of ranks end with a named error, and nothing is left") {
  const LoadedModel model(TinyModel::make("llama"));
  const Mix mix{1, 1};
  const auto ask = answer(model.config, model.weights, {.max_tokens = 2});
  std::int64_t calls = 0;
  {
    const Recording recording(mix.options());
    (void)on_every(mix.devices(), mix.shares, ask);
    calls = recording.calls();
  }
  REQUIRE(calls > 500);
  std::int64_t failures = 0, host_told = 0;
  for (std::int64_t n = 1; n < calls; n += calls / 41) {
    INFO("call " << n << " of " << calls);
    Recording recording(mix.options());
    recording.fail(n);
    try {
      (void)on_every(mix.devices(), mix.shares, [&](auto& pipeline) {
        try {
          return ask(pipeline);
        } catch (const Error& error) {
          host_told += pipeline.rank() == 1 && error.rank() == 0;
          throw;
        }
      });
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
  CHECK(failures > 10);
  CHECK(host_told > 10);
}
