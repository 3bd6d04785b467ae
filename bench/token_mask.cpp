// SPDX-License-Identifier: Apache-2.0
//
// What it costs each token that an answer is kept to a grammar: the mask of one rank that has the whole vocabulary,
// whose words are random and as long as those of real ones. "kept": a place that was seen before; "new": one that was
// not.
#include <benchmark/benchmark.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include <troika/models/grammar/token_mask.hpp>

namespace models = troika::models;

namespace {

std::shared_ptr<const models::TokenBytes> vocabulary(std::int64_t size) {
  std::mt19937 random(1);
  std::vector<std::string> words;
  for (int byte = 0; byte < 256; ++byte) words.emplace_back(1, static_cast<char>(byte));
  const std::string marks = "\"{}[]:,.-()\n\\ ", letters = "etaoinshrdlucmfwypvbgkjqxz";
  while (static_cast<std::int64_t>(words.size()) < size) {
    std::string word = random() % 2 == 0 ? " " : "";
    const bool mark = random() % 12 == 0;
    for (auto length = 1 + random() % (mark ? 4 : 9); length > 0; --length) {
      const auto& from = mark ? marks : letters;
      word += from[std::min(random() % from.size(), random() % from.size())];
    }
    words.push_back(word);
  }
  return std::make_shared<const models::TokenBytes>(words);
}

// Inside of a string, inside of the name of a member, and where a value begins.
void mask(benchmark::State& state, bool kept) {
  const auto tokens = vocabulary(state.range(0));
  constexpr const char* schema =
      R"({"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":true})";
  models::GrammarState place(models::Grammar::of_schema(schema));
  constexpr const char* texts[] = {"{\"a\": \"some ", "{\"a\": \"\", \"na", "{\"a\": \"\", \"name\": "};
  if (!place.advance(texts[state.range(1)])) state.SkipWithError("the text is not of the grammar");
  std::vector<float> logits(static_cast<std::size_t>(state.range(0)), 1.0f);
  models::TokenMask one(tokens, 0, state.range(0));
  for (auto _ : state) {
    if (!kept) {
      state.PauseTiming();
      one = models::TokenMask(tokens, 0, state.range(0));
      state.ResumeTiming();
    }
    one.apply(place, {}, logits);
    benchmark::DoNotOptimize(logits.data());
  }
}
BENCHMARK_CAPTURE(mask, kept, true)->ArgsProduct({{32000, 128000}, {0, 1, 2}})->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(mask, new, false)->ArgsProduct({{32000, 128000}, {0, 1, 2}})->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
