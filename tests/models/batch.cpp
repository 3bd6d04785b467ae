// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/reference_model.hpp>
#include <support/spmd.hpp>
#include <support/tiny_model.hpp>

#include <troika/models/batch.hpp>
#include <troika/models/decoder.hpp>

using Catch::Matchers::Contains;
using troika::models::Batch;
using troika::models::Decoder;
using troika::models::DecoderOptions;

namespace {

using Tokens = std::vector<std::int32_t>;

Tokens random_tokens(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  Tokens tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(random() % 101);
  return tokens;
}

// Three sequences on scattered pages; the third begins as the first does and reads that page instead of computing it.
struct Three {
  std::vector<Tokens> tokens{random_tokens(300, 1), random_tokens(140, 2), random_tokens(260, 3)};
  std::vector<Tokens> pages{{5, 0, 3}, {2, 6}, {5, 1, 4}};
  Three() { std::copy_n(tokens[0].begin(), troika::kv_page, tokens[2].begin()); }
};

struct Piece {
  std::size_t sequence;
  std::int64_t from, count, wanted;
};
// Prompts in pieces, long and short, beside single tokens.
const std::vector<std::vector<Piece>> passes{
    {{0, 0, 130, 0}, {1, 0, 3, 3}},
    {{2, 128, 2, 1}, {1, 3, 1, 1}, {0, 130, 1, 1}},
    {{0, 131, 150, 2}, {2, 130, 100, 0}, {1, 4, 134, 1}},
    {{1, 138, 1, 1}, {0, 281, 1, 1}, {2, 230, 29, 4}},
    {{2, 259, 1, 1}},
    {{0, 282, 18, 18}, {1, 139, 1, 0}},
};

// The logits of all passes, and in each the token of the sequence that they belong to.
struct Logits {
  std::vector<float> values;
  std::vector<std::pair<std::size_t, std::int64_t>> of;
};

Logits run(const LoadedModel& model, int world, const DecoderOptions& options) {
  const Three three;
  const auto ranks = spmd(world, [&](auto& pipeline) {
    const Decoder decoder(pipeline, model.config, model.weights, options);
    auto memory = decoder.make_memory(pipeline.device(), 7);
    Batch batch;
    Logits logits;
    for (const auto& pass : passes) {
      batch.clear();
      for (const auto& piece : pass) {
        const auto& tokens = three.tokens[piece.sequence];
        batch.add(
            std::span(tokens).subspan(static_cast<std::size_t>(piece.from), static_cast<std::size_t>(piece.count)),
            piece.from, three.pages[piece.sequence], piece.wanted);
        for (std::int64_t i = piece.count - piece.wanted; i < piece.count; ++i)
          logits.of.push_back({piece.sequence, piece.from + i});
      }
      const auto whole = pipeline.run(decoder.forward(pipeline, batch, memory), troika::to<troika::Replicate>);
      logits.values.insert(logits.values.end(), whole.values().begin(), whole.values().end());
    }
    return logits;
  });
  for (const auto& rank : ranks) REQUIRE(rank.values == ranks[0].values);
  return ranks[0];
}

}  // namespace

TEST_CASE("sequences in one pass give the logits of each alone, on scattered and on shared pages") {
  for (const std::string type : {"llama", "mistral", "qwen3", "gemma2", "qwen3_moe"}) {
    auto tiny = TinyModel::make(type, 31);
    tiny.positions = 320;
    if (tiny.window > 0) tiny.window = 150;  // begins in the middle of a page
    const LoadedModel model(tiny);
    std::vector<std::vector<std::vector<double>>> reference;
    for (const auto& tokens : Three().tokens) reference.push_back(ReferenceModel(tiny).logits(tokens));
    for (const int world : test_worlds) {
      for (const bool sequence_parallel : {false, true}) {
        INFO(type << " on " << world << " ranks" << (sequence_parallel ? ", tokens split" : ""));
        const auto logits = run(model, world, {.sequence_parallel = sequence_parallel});
        const auto vocab = static_cast<std::size_t>(tiny.vocab);
        REQUIRE(logits.values.size() == logits.of.size() * vocab);
        for (std::size_t i = 0; i < logits.of.size(); ++i) {
          const auto [sequence, token] = logits.of[i];
          const auto row = std::span(logits.values).subspan(i * vocab, vocab);
          INFO("token " << token << " of sequence " << sequence);
          CHECK(distance(row, reference[sequence][static_cast<std::size_t>(token)]) < 2e-5);
        }
      }
    }
  }
}

TEST_CASE("pages of every type of cache hold what a cache of one sequence holds") {
  auto tiny = TinyModel::make("llama", 32);
  tiny.positions = 320;
  const LoadedModel model(tiny);
  const auto tokens = random_tokens(280, 4);
  const Tokens pages{2, 0, 1};
  for (const auto kv_type : troika::kv_types) {
    const auto ranks = spmd(2, [&](auto& pipeline) {
      const Decoder decoder(pipeline, model.config, model.weights, {.kv_type = kv_type});
      auto memory = decoder.make_memory(pipeline.device(), 3);
      auto cache = decoder.make_cache(pipeline.device());
      Batch batch;
      bool same = true;
      for (std::size_t from = 0, count = 279; from < tokens.size(); from += count, count = 1) {
        const auto some = std::span(tokens).subspan(from, count);
        batch.clear();
        batch.add(some, static_cast<std::int64_t>(from), pages);
        const auto paged = pipeline.run(decoder.forward(pipeline, batch, memory), troika::to<troika::Replicate>);
        const auto alone = pipeline.run(decoder.forward(pipeline, some, cache), troika::to<troika::Replicate>);
        same = same && std::ranges::equal(paged.values(), alone.values());
      }
      return same;
    });
    INFO(troika::to_string(kv_type));
    CHECK(ranks == std::vector<bool>{true, true});
  }
}

TEST_CASE("a batch that does not fit is refused before anything is computed") {
  Batch batch;
  const Tokens two{1, 2}, page{0};
  CHECK_THROWS_WITH(batch.add({}, 0, page), Contains("at least one token"));
  CHECK_THROWS_WITH(batch.add(two, 0, page, 3), Contains("valid here is 0 to 2"));
  CHECK_THROWS_WITH(batch.add(two, 127, page), Contains("1 pages hold 128 tokens, not 127 and 2 more"));
  CHECK_THROWS_WITH(batch.add(two, -1, page), Contains("not -1 and 2 more"));
  CHECK(batch.tokens() == 0);

  const LoadedModel model(TinyModel::make("llama"));
  const auto message = [&](std::int64_t cached, const Tokens& pages, std::int64_t memory_pages) {
    std::string text;
    try {
      spmd(2, [&](auto& pipeline) {
        const Decoder decoder(pipeline, model.config, model.weights);
        auto memory = decoder.make_memory(pipeline.device(), memory_pages);
        Batch some;
        if (!pages.empty()) some.add(two, cached, pages);
        (void)decoder.forward(pipeline, some, memory);
        return 0;
      });
    } catch (const troika::Error& error) {
      text = error.what();
    }
    return text;
  };
  CHECK_THAT(message(0, {}, 1), Contains("at least one token"));
  CHECK_THAT(message(63, {0}, 1), Contains("63 tokens and 2 more do not fit a context of 64"));
  CHECK_THAT(message(0, {1}, 1), Contains("page 1 does not exist; the memory has 1"));
  CHECK_THAT(message(0, {-1}, 1), Contains("page -1 does not exist"));
}
