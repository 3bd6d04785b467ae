// SPDX-License-Identifier: Apache-2.0
#include <troika/models/grammar/token_mask.hpp>

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <models_text/small_tokenizers.hpp>
#include <support/catch.hpp>

using namespace troika::models;

namespace {

// All bytes, and pieces that JSON is made of: some cross the ends of strings, members and objects.
std::vector<std::string> vocabulary() {
  std::vector<std::string> tokens{""};
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* token :
       {"{\"",  "\":",      "\": ",     "\",",  "\", \"",       "\"}",  "\"}]", "}}",   "}]}",
        "]]",   "[[",       "[[[[[[",   "name", "\"name\": \"", " \"",  ",\n",  "  ",   "tr",
        "true", "ue,",      "null}",    "12",   "123",          "-1",   ".5",   "e1",   "é",
        "\xc3", "\x98\x80", "\xf0\x9f", "\\u",  "\\ud8",        "\\\"", "a\"",  "name", "the same as others \"], "})
    tokens.emplace_back(token);
  return tokens;
}

const std::vector<std::string> schemas{
    "{}",
    R"({"type":"object","properties":{"name":{"type":"string"},"list":{"type":"array","items":{"type":"integer"}}},"required":["name"],"additionalProperties":true})",
    R"({"type":"array","items":{"type":"string","maxLength":3},"minItems":1})",
    R"({"anyOf":[{"type":"array","items":{"$ref":"#"}},{"type":"array","items":{"type":"array","items":{"$ref":"#"}}},{"type":"null"}]})"};

}  // namespace

TEST_CASE("a mask allows what the grammar does, each rank for its part of the vocabulary") {
  const auto words = vocabulary();
  const auto tokens = std::make_shared<const TokenBytes>(words);
  const auto size = static_cast<std::int64_t>(words.size()), all = size + 9;  // rows that no token has
  std::vector<TokenMask> parts;
  parts.emplace_back(tokens, 0, 0);
  parts.emplace_back(tokens, 0, 101);
  parts.emplace_back(tokens, 101, 275);
  parts.emplace_back(tokens, 275, all);
  std::mt19937 random(3);
  for (int round = 0; round < 2; ++round) {
    for (const auto& schema : schemas) {
      CAPTURE(schema);
      GrammarState state(Grammar::of_schema(schema));
      std::string text;
      for (int step = 0; step < 60 && !state.complete(); ++step) {
        std::vector<std::int32_t> wanted, got;
        for (std::int32_t id = 0; id < size; ++id) {
          GrammarState tried = state;
          if (!words[static_cast<std::size_t>(id)].empty() && tried.advance(words[static_cast<std::size_t>(id)]))
            wanted.push_back(id);
        }
        std::int64_t first = 0;
        for (auto& part : parts) {
          const std::int64_t end = &part == &parts[0] ? 0 : &part == &parts[1] ? 101 : &part == &parts[2] ? 275 : all;
          const auto bits = part.allowed(state);
          for (auto id = first; id < end; ++id) {
            const auto i = static_cast<std::size_t>(id - first);
            if ((bits[i / 64] >> (i % 64) & 1) != 0) got.push_back(static_cast<std::int32_t>(id));
          }
          first = end;
        }
        CAPTURE(text);
        REQUIRE(got == wanted);
        REQUIRE_FALSE(wanted.empty());
        const auto& token = words[static_cast<std::size_t>(wanted[random() % wanted.size()])];
        REQUIRE(state.advance(token));
        text += token;
      }
    }
  }
}

TEST_CASE("tokens that end a text may come where it is one") {
  const std::vector<std::string> words{"", "1", "2", "true", "</s>"};
  TokenMask mask(std::make_shared<const TokenBytes>(words), 0, 5);
  GrammarState state(Grammar::of_schema(R"({"type":"integer"})"));
  const std::vector<std::int32_t> ends{4};
  std::vector<float> logits{1, 2, 3, 4, 5};
  mask.apply(state, ends, logits);
  CHECK(std::isinf(logits[0]));
  CHECK(logits[1] == 2);
  CHECK(std::isinf(logits[3]));
  CHECK(std::isinf(logits[4]));
  REQUIRE(state.advance("1"));
  logits = {1, 2, 3, 4, 5};
  mask.apply(state, ends, logits);
  CHECK(logits[2] == 3);
  CHECK(logits[4] == 5);
}

TEST_CASE("the bytes of tokens are those that they add to a text") {
  const auto tokenizer = Tokenizer::parse(troika::test::byte_level());
  CHECK(tokenizer.bytes_of('a') == "a");
  CHECK(tokenizer.bytes_of(0xc3) == "\xc3");
  CHECK(tokenizer.bytes_of(259) == " he");
  CHECK(tokenizer.bytes_of(260).empty());
  const auto pieces = Tokenizer::parse(troika::test::sentence_piece());
  CHECK(pieces.bytes_of(3 + 0xe4) == "\xe4");
  CHECK(pieces.bytes_of(263) == " ab");
  CHECK(pieces.bytes_of(259) == " ");
  CHECK(pieces.bytes_of(2).empty());
  CHECK(TokenBytes(pieces)[264] == "ba");
}
