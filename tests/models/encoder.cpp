// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/reference_model.hpp>
#include <support/spmd.hpp>
#include <support/temp_folder.hpp>
#include <support/tiny_model.hpp>

#include <troika/models/encoder.hpp>

TEST_CASE("a split encoder gives the hidden state and the embedding of the reference") {
  const auto tiny = TinyModel::make("bert");
  troika::test::TempFolder folder;
  tiny.write(folder.path());
  const auto config = troika::models::ModelConfig::load(folder.path());
  const auto weights = troika::models::Weights::open(folder.path());
  const std::vector<std::int32_t> ids{5, 17, 42, 99, 3};
  const auto reference = ReferenceModel(tiny).hidden_state(ids);
  std::vector<double> mean(static_cast<std::size_t>(tiny.hidden), 0.0);
  for (const auto& token : reference)
    for (std::size_t j = 0; j < token.size(); ++j) mean[j] += token[j] / 5;

  const auto check = [&](int world, troika::StaticAllocation allocation) {
    const auto ranks = spmd(world, allocation, [&](auto& pipeline) {
      const troika::models::Encoder encoder(pipeline, config, weights);
      const auto state = encoder.forward(pipeline, ids);
      return std::pair(std::vector<float>(state.values().begin(), state.values().end()), encoder.embed(pipeline, ids));
    });
    for (const auto& [state, embedding] : ranks) {
      REQUIRE(state == ranks[0].first);
      double worst = 0;
      for (std::size_t i = 0; i < state.size(); ++i) {
        worst = std::max(worst, std::abs(state[i] - reference[i / mean.size()][i % mean.size()]));
      }
      for (std::size_t j = 0; j < mean.size(); ++j) worst = std::max(worst, std::abs(embedding[j] - mean[j]));
      CHECK(worst < 2e-5);
    }
  };
  for (const int world : test_worlds) {
    INFO(world << " ranks");
    check(world, troika::StaticAllocation{});
    check(world, troika::StaticAllocation{uneven_weights(world)});
  }
}

TEST_CASE("texts of one pass have the embeddings that each has alone") {
  const LoadedModel model(TinyModel::make("bert", 12));
  std::vector<std::vector<std::int32_t>> texts;
  for (const int tokens : {3, 64, 1, 17, 3}) {
    auto& text = texts.emplace_back();
    for (int t = 0; t < tokens; ++t) text.push_back((7 * t * t + 5 * tokens + 1) % 101);
  }
  const std::vector<std::span<const std::int32_t>> all(texts.begin(), texts.end());
  for (const int world : {1, 2, 3}) {
    INFO(world << " ranks");
    const auto [together, alone] = spmd(world, [&](auto& pipeline) {
      const troika::models::Encoder encoder(pipeline, model.config, model.weights);
      std::vector<std::vector<float>> each;
      for (const auto& text : texts) each.push_back(encoder.embed(pipeline, text));
      return std::pair(encoder.embed(pipeline, all), each);
    })[0];
    REQUIRE(together.size() == texts.size());
    double worst = 0;
    for (std::size_t i = 0; i < texts.size(); ++i)
      for (std::size_t j = 0; j < alone[i].size(); ++j)
        worst = std::max(worst, std::abs(double{together[i][j]} - double{alone[i][j]}));
    CHECK(worst < 1e-5);
    CHECK(alone[0] != alone[2]);
  }
}

TEST_CASE("an input longer than the positions of an encoder is refused") {
  const auto tiny = TinyModel::make("bert");
  troika::test::TempFolder folder;
  tiny.write(folder.path());
  const auto config = troika::models::ModelConfig::load(folder.path());
  const auto weights = troika::models::Weights::open(folder.path());
  CHECK_THROWS_WITH(spmd(2,
                         [&](auto& pipeline) {
                           const troika::models::Encoder encoder(pipeline, config, weights);
                           return encoder.embed(pipeline, std::vector<std::int32_t>(65, 3)).size();
                         }),
                    Catch::Matchers::ContainsSubstring("1 to 64"));
}
