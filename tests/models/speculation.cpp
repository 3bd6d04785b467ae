// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/reference_model.hpp>
#include <support/spmd.hpp>
#include <support/tiny_model.hpp>

#include <troika/models/generate.hpp>
#include <troika/models/speculation.hpp>
#include <troika/models/text/tokenizer.hpp>

using troika::models::Decoder;
using troika::models::DraftModel;
using troika::models::Generated;
using troika::models::GenerateOptions;
using troika::models::ModelConfig;
using troika::models::PromptLookup;
using troika::models::Tokenizer;
using troika::models::Weights;

namespace {

using Tokens = std::vector<std::int32_t>;

const Tokens prompt{1, 17, 42, 5, 99, 63, 8, 20, 77, 17, 42, 5};

// Guesses the tokens that are known to come, some of them spoiled: all numbers of right guesses occur.
struct Spoiled {
  Tokens expected;
  std::mt19937 random{7};
  Tokens guesses{};

  std::span<const std::int32_t> operator()(std::span<const std::int32_t>, std::uint64_t drawn, std::size_t most) {
    guesses.clear();
    for (auto i = static_cast<std::size_t>(drawn);
         i < expected.size() && guesses.size() < std::min<std::size_t>(most, random() % 6); ++i) {
      guesses.push_back(random() % 4 == 0 ? static_cast<std::int32_t>(random() % 100) : expected[i]);
    }
    return guesses;
  }
};
static_assert(troika::models::Proposer<Spoiled>);

struct Run {
  Generated generated;
  std::int64_t cached = 0;  // tokens in the cache at the end
};

// What each rank draws; `make` gives the proposer, made from a pipeline.
template <class Make>
std::vector<Run> run(const LoadedModel& model, int world, const GenerateOptions& options, Make make) {
  return spmd(world, [&](auto& pipeline) {
    const Decoder decoder(pipeline, model.config, model.weights);
    auto cache = decoder.make_cache(pipeline.device());
    auto proposer = make(pipeline);
    Run result;
    Tokens heard;
    result.generated = speculate(pipeline, decoder, cache, prompt, options, proposer,
                                 [&](std::int32_t token) { heard.push_back(token); });
    if (heard != result.generated.tokens) result.generated.tokens.clear();
    result.cached = cache.length();
    return result;
  });
}

void check_same(const std::vector<Run>& ranks, const Tokens& expected, std::int64_t cached) {
  for (const auto& [generated, length] : ranks) {
    CHECK(generated.tokens == expected);
    CHECK(length == cached);
    CHECK(generated.accepted <= generated.proposed);
  }
}

Tokens lookup(const Tokens& seen, std::size_t most, troika::models::PromptLookupOptions options = {}) {
  PromptLookup proposer(options);
  const auto guesses = proposer(seen, 0, most);
  return {guesses.begin(), guesses.end()};
}

}  // namespace

TEST_CASE("prompt lookup proposes what followed the latest place that agrees in most tokens") {
  CHECK(lookup({1, 2, 3, 4, 5, 9, 2, 3}, 2) == Tokens{4, 5});
  CHECK(lookup({1, 2, 3, 4, 7, 2, 3, 5, 8, 2, 3}, 2) == Tokens{5, 8});  // the later of two
  CHECK(lookup({1, 2, 3, 4, 7, 2, 8, 1, 2}, 1) == Tokens{3});           // two that agree are better than one
  CHECK(lookup({1, 2, 3, 4}, 5).empty());
  CHECK(lookup({4}, 5).empty());
  CHECK(lookup({4, 4}, 0).empty());
  CHECK(lookup({6, 1, 2, 3, 1, 2}, 8) == Tokens{3, 1, 2, 3, 1, 2, 3, 1});  // round in circles
  CHECK(lookup({5, 5}, 3) == Tokens{5, 5, 5});
  CHECK(lookup({1, 2, 3, 4, 5, 6, 7, 1}, 9, {.guesses = 4}) == Tokens{2, 3, 4, 5});
  CHECK(lookup({1, 2, 9, 8, 2, 7, 1, 2}, 1, {.match = 1}) == Tokens{7});
  CHECK_THROWS_WITH(PromptLookup({.guesses = 16}), Catch::Matchers::ContainsSubstring("1 to 15"));
  CHECK_THROWS_WITH(PromptLookup({.match = 0}), Catch::Matchers::ContainsSubstring("1 token or more"));
}

TEST_CASE("speculation draws the tokens of the reference, whatever the model, the guesses and the world") {
  for (const std::string type : {"llama", "mistral", "qwen2", "qwen3"}) {
    const auto tiny = TinyModel::make(type, 21), other = TinyModel::make(type, 22);
    const LoadedModel model(tiny), stranger(other);
    const GenerateOptions options{.max_tokens = 24};
    const auto expected = ReferenceModel(tiny).greedy(prompt, options.max_tokens, 2);
    const bool ended = static_cast<std::int64_t>(expected.size()) < options.max_tokens;
    const auto cached = static_cast<std::int64_t>(prompt.size() + expected.size()) - (ended ? 0 : 1);
    for (const int world : {1, 2, 3, 4, 5}) {
      INFO(type << " on " << world << " ranks");
      check_same(run(model, world, options, [](auto&) { return PromptLookup({.match = 1}); }), expected, cached);
      check_same(run(model, world, options, [&](auto&) { return Spoiled{expected}; }), expected, cached);
      for (const auto* draft : {&model, &stranger}) {
        const auto ranks = spmd(world, [&](auto& pipeline) {
          const Decoder small(pipeline, draft->config, draft->weights), decoder(pipeline, model.config, model.weights);
          auto cache = decoder.make_cache(pipeline.device());
          DraftModel proposer(pipeline, small, options.sampling, 3);
          auto generated = speculate(pipeline, decoder, cache, prompt, options, proposer, [](std::int32_t) {});
          return Run{std::move(generated), cache.length()};
        });
        check_same(ranks, expected, cached);
        if (draft == &model) CHECK(ranks[0].generated.accepted == ranks[0].generated.proposed);  // it knows what comes
        if (draft == &model && !ended) CHECK(ranks[0].generated.steps == 6);                     // 1 + 5 * 4 + 3
      }
    }
  }
}

TEST_CASE("sampled tokens are those of plain decoding, token by token") {
  const LoadedModel model(TinyModel::make("llama", 6));
  const troika::SamplingOptions choices[] = {{.temperature = 0.6f, .seed = 11},
                                             {.temperature = 0.9f, .top_k = 7, .seed = 12},
                                             {.temperature = 1.2f, .top_p = 0.8f, .seed = 13}};
  for (const auto& sampling : choices) {
    const GenerateOptions options{.max_tokens = 30, .sampling = sampling};
    const auto plain = run(model, 1, options, [](auto&) { return troika::models::NoProposals{}; })[0];
    for (const int world : {1, 2, 3, 5}) {
      check_same(run(model, world, options, [](auto&) { return PromptLookup({.match = 1}); }), plain.generated.tokens,
                 plain.cached);
      check_same(run(model, world, options, [&](auto&) { return Spoiled{plain.generated.tokens}; }),
                 plain.generated.tokens, plain.cached);
    }
    // The same noise for the draft: a draft that is the model is always right.
    const auto ranks = spmd(2, [&](auto& pipeline) {
      const Decoder decoder(pipeline, model.config, model.weights);
      auto cache = decoder.make_cache(pipeline.device());
      DraftModel proposer(pipeline, decoder, sampling);
      return speculate(pipeline, decoder, cache, prompt, options, proposer, [](std::int32_t) {});
    });
    for (const auto& generated : ranks) {
      CHECK(generated.tokens == plain.generated.tokens);
      CHECK(generated.accepted == generated.proposed);
    }
  }
}

TEST_CASE("the bundled model answers the same with speculation, and repeats are guessed") {
  const std::string folder = TROIKA_SOURCE_DIR "/examples/model";
  const auto config = ModelConfig::load(folder);
  const auto weights = Weights::open(folder);
  const auto tokenizer = Tokenizer::load(folder);
  const std::vector<std::string> texts{"12 + 345 =", "999 + 1 =", "the smallest of 20 35 82 21 is",
                                       "7 8 9 7 8 9 7 8 9 7"};
  std::vector<Tokens> expected;
  for (const int world : {1, 2, 3, 4, 5}) {
    const auto ranks = spmd(world, [&](auto& pipeline) {
      const Decoder decoder(pipeline, config, weights);
      auto cache = decoder.make_cache(pipeline.device());
      std::vector<std::vector<Generated>> results;
      for (const auto& text : texts) {
        const auto ids = tokenizer.encode(text);
        auto& of_text = results.emplace_back();
        const auto add = [&](auto proposer) {
          cache.truncate(0);
          of_text.push_back(
              speculate(pipeline, decoder, cache, ids, {.max_tokens = 40}, proposer, [](std::int32_t) {}));
        };
        add(troika::models::NoProposals{});
        add(PromptLookup());
        add(DraftModel(pipeline, decoder, {}));
      }
      return results;
    });
    for (const auto& rank : ranks) {
      for (std::size_t i = 0; i < texts.size(); ++i) {
        INFO(texts[i] << " on " << world << " ranks");
        if (expected.size() == i) expected.push_back(rank[i][0].tokens);
        for (const auto& generated : rank[i]) CHECK(generated.tokens == expected[i]);
        CHECK(rank[i][2].accepted == rank[i][2].proposed);
      }
    }
  }
}

TEST_CASE("a draft model guesses within its context and its vocabulary, and only there") {
  const LoadedModel model(TinyModel::make("llama", 3));
  const GenerateOptions options{.max_tokens = 20};
  const auto plain = run(model, 2, options, [](auto&) { return troika::models::NoProposals{}; })[0];
  REQUIRE(plain.generated.tokens.size() == 20);
  const auto ranks = spmd(2, [&](auto& pipeline) {
    const Decoder decoder(pipeline, model.config, model.weights),
        small(pipeline, model.config, model.weights, {.context = 20});
    auto cache = decoder.make_cache(pipeline.device());
    DraftModel proposer(pipeline, small, {});
    auto first = speculate(pipeline, decoder, cache, prompt, options, proposer, [](std::int32_t) {});
    const Tokens unknown{5, 101, 7}, known{5, 6, 7};
    const std::size_t none = proposer(unknown, 0, 3).size(), some = proposer(known, 0, 3).size();
    return std::pair(std::move(first), std::pair(none, some));
  });
  for (const auto& [generated, counts] : ranks) {
    CHECK(generated.tokens == plain.generated.tokens);
    CHECK(generated.proposed > 0);
    CHECK(generated.proposed < 12);  // 12 tokens of prompt in a context of 20
    CHECK(counts == std::pair<std::size_t, std::size_t>(0, 3));
  }
  struct Foreign {
    Tokens guesses{3, 101, 4};
    std::span<const std::int32_t> operator()(std::span<const std::int32_t>, std::uint64_t, std::size_t most) {
      return std::span(guesses).first(std::min(most, guesses.size()));
    }
  };
  check_same(run(model, 2, options, [](auto&) { return Foreign{}; }), plain.generated.tokens, plain.cached);
}

TEST_CASE("a draft model with another vocabulary is refused by the token that differs") {
  const auto made = [](const std::string& third) {
    return Tokenizer::parse(R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, ")" + third +
                            R"(": 2}, "merges": []}})");
  };
  CHECK_NOTHROW(check_same_vocabulary(made("c"), made("c")));
  CHECK_THROWS_WITH(check_same_vocabulary(made("c"), made("d")),
                    Catch::Matchers::ContainsSubstring("token 2 is \"d\" to the draft model and \"c\" to the model"));
  CHECK_THROWS_WITH(check_same_vocabulary(
                        made("c"), Tokenizer::parse(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})")),
                    Catch::Matchers::ContainsSubstring("vocabulary of 1 tokens, the model one of 3"));
}
