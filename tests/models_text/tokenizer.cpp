// SPDX-License-Identifier: Apache-2.0
#include <troika/models/text/tokenizer.hpp>

#include <ctime>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <support/catch.hpp>
#include <support/temp_folder.hpp>

#include <troika/core/error.hpp>

#include "small_tokenizers.hpp"

using namespace troika;
using namespace troika::models;
using troika::test::TempFolder;
using namespace troika::test;
using Catch::Matchers::ContainsSubstring;
using Ids = std::vector<std::int32_t>;

namespace {

// The rule of BPE in its plainest form: merge the leftmost pair of the lowest rank, again and again.
std::vector<std::string> merged_naively(std::vector<std::string> symbols,
                                        const std::vector<std::pair<std::string, std::string>>& merges) {
  std::map<std::pair<std::string, std::string>, std::size_t> ranks;
  for (std::size_t i = 0; i < merges.size(); ++i) ranks[merges[i]] = i;
  for (;;) {
    std::size_t best = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ranks.find({symbols[i], symbols[i + 1]});
      if (found != ranks.end() && found->second < best) best = found->second, at = i;
    }
    if (best == merges.size()) return symbols;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

}  // namespace

TEST_CASE("A byte-level tokenizer merges what its merges say, and gives every byte back") {
  const auto tokenizer = Tokenizer::parse(byte_level());
  // 'Ġ' spells the space; merges are h+e, l+l, he+ll, Ġ+he.
  CHECK(tokenizer.encode("hello", false) == Ids{*tokenizer.id_of("hell"), *tokenizer.id_of("o")});
  CHECK(tokenizer.encode(" he", false) == Ids{*tokenizer.id_of("Ġhe")});
  CHECK(tokenizer.encode("he", true) == Ids{*tokenizer.id_of("<s>"), *tokenizer.id_of("he"), *tokenizer.id_of("</s>")});
  CHECK(tokenizer.encode("a<s>b", false) == Ids{*tokenizer.id_of("a"), *tokenizer.id_of("<s>"), *tokenizer.id_of("b")});
  for (const std::string text : {"", " ", "hello  hello\n", "naïve 😀 天地", "a\tb\r\nc", "e\xcc\x81", "\xef\xbf\xbd"}) {
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
  }
  std::string everything;
  for (char c = 1; c < 127; ++c) everything += c;
  everything += std::string(1, '\0');
  CHECK(tokenizer.decode(tokenizer.encode(everything)) == everything);
  CHECK(tokenizer.decode(tokenizer.encode("he"), false) == "<s>he</s>");
  CHECK(tokenizer.is_special(*tokenizer.id_of("<s>")));
  CHECK(!tokenizer.is_special(*tokenizer.id_of("he")));
  CHECK(tokenizer.token_of(*tokenizer.id_of("hell")) == "hell");
  CHECK(!tokenizer.id_of("absent"));
  CHECK(tokenizer.vocab_size() == 262);
}

TEST_CASE("Half a character decodes as one replacement character") {
  const auto tokenizer = Tokenizer::parse(byte_level());
  auto ids = tokenizer.encode("😀", false);
  REQUIRE(ids.size() == 4);
  CHECK(tokenizer.decode(std::span(ids).first(3)) == "\xef\xbf\xbd");
  CHECK(tokenizer.decode(std::span(ids).last(2)) == "\xef\xbf\xbd\xef\xbf\xbd");
}

TEST_CASE("A SentencePiece-style tokenizer prepends a space and falls back to bytes") {
  const auto tokenizer = Tokenizer::parse(sentence_piece());
  const auto id = [&](const char* token) { return *tokenizer.id_of(token); };
  CHECK(tokenizer.encode("ab") == Ids{id("<s>"), id("▁ab")});
  CHECK(tokenizer.encode("ab ab", false) == Ids{id("▁ab"), id("▁ab")});
  CHECK(tokenizer.encode("é", false) == Ids{id("▁"), id("<0xC3>"), id("<0xA9>")});
  CHECK(tokenizer.encode("", false).empty());
  for (const std::string text : {"ab", " ab", "ab  ba", "é", "天😀\n"})
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
  CHECK(tokenizer.decode(Ids{id("<0xC3>")}) == "\xef\xbf\xbd");
}

TEST_CASE("WordPiece takes the longest tokens, and gives up on whole words") {
  const auto tokenizer = Tokenizer::parse(word_piece());
  const auto id = [&](const char* token) { return *tokenizer.id_of(token); };
  CHECK(tokenizer.encode("unhappily") == Ids{id("[CLS]"), id("un"), id("##happi"), id("##ly"), id("[SEP]")});
  CHECK(tokenizer.encode("UNHAPPY", false) == Ids{id("un"), id("##happ"), id("##y")});
  CHECK(tokenizer.encode("h\xc3\xa4ppi", false) == Ids{id("happi")});  // accents go with the capitals
  CHECK(tokenizer.encode("unx happi!", false) == Ids{id("[UNK]"), id("happi"), id("!")});
  CHECK(tokenizer.encode("天happi", false) == Ids{id("天"), id("happi")});
  CHECK(tokenizer.encode("a[MASK]b", false) == Ids{id("[UNK]"), id("[MASK]"), id("[UNK]")});
  CHECK(tokenizer.encode(std::string(21, 'u'), false) == Ids{id("[UNK]")});
  CHECK(tokenizer.decode(tokenizer.encode("unhappily happi !")) == "unhappily happi!");
}

TEST_CASE("BPE with a queue merges as the plain rule does") {
  std::mt19937 random(7);
  for (int round = 0; round < 30; ++round) {
    // A random vocabulary over three letters: each merge joins two tokens that exist.
    std::vector<std::string> tokens{"a", "b", "c"};
    std::vector<std::pair<std::string, std::string>> merges;
    while (merges.size() < 40) {
      const auto pick = [&] { return tokens[random() % tokens.size()]; };
      const std::pair<std::string, std::string> merge{pick(), pick()};
      const auto joined = merge.first + merge.second;
      if (joined.size() > 12 || std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
      merges.push_back(merge);
      if (std::find(tokens.begin(), tokens.end(), joined) == tokens.end()) tokens.push_back(joined);
    }
    std::string vocab, list;
    for (std::size_t i = 0; i < tokens.size(); ++i) vocab += (i ? ",\"" : "\"") + tokens[i] + "\":" + std::to_string(i);
    for (const auto& [a, b] : merges) list += (list.empty() ? "\"" : ",\"") + a + " " + b + "\"";
    const auto tokenizer =
        Tokenizer::parse(R"({"model":{"type":"BPE","vocab":{)" + vocab + R"(},"merges":[)" + list + "]}}");
    for (int text = 0; text < 40; ++text) {
      std::vector<std::string> symbols(1 + random() % 60);
      std::string whole;
      for (auto& symbol : symbols) whole += symbol = std::string(1, "abc"[random() % 3]);
      std::vector<std::string> got;
      for (const auto id : tokenizer.encode(whole)) got.push_back(tokenizer.token_of(id));
      CHECK(got == merged_naively(symbols, merges));
    }
  }
}

TEST_CASE("A million equal characters are encoded in seconds of work") {
  const auto start = std::clock();  // not the wall: the machine may be busy
  const auto tokenizer = Tokenizer::parse(sentence_piece());
  const std::string text(1'000'000, 'a');
  CHECK(tokenizer.encode(text, false).size() > 100'000);
  const auto bytes = Tokenizer::parse(byte_level());
  CHECK(bytes.encode(text, false).size() == 1'000'000);
  CHECK(bytes.encode(std::string(1'000'000, ' '), false).size() == 1'000'000);
  CHECK(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC < 30);
}

TEST_CASE("Text that is not UTF-8 is refused with the byte that is wrong") {
  const auto tokenizer = Tokenizer::parse(byte_level());
  const std::pair<std::string, int> cases[] = {
      {"\xff", 0},         {"ab\x80", 2},           {"ab\xc3", 2},           {"\xc0\xaf", 0},       {"x\xe2\x82", 1},
      {"\xed\xa0\x80", 0}, {"\xf4\x90\x80\x80", 0}, {"\xf0\x82\x82\xac", 0}, {"é\xf0\x9f\x98z", 2}, {"\xfe\xff", 0},
  };
  for (const auto& [text, byte] : cases) {
    try {
      tokenizer.encode(text);
      FAIL_CHECK("was accepted");
    } catch (const Error& error) {
      CHECK(error.fault() == Fault::invalid_argument);
      CHECK_THAT(error.what(), ContainsSubstring("byte " + std::to_string(byte) + " "));
    }
  }
}

TEST_CASE("An id that is not in the vocabulary is an error") {
  const auto tokenizer = Tokenizer::parse(byte_level());
  for (const std::int32_t id : {-1, 262, 1 << 30}) {
    CHECK_THROWS_WITH(tokenizer.decode(Ids{0, id}), ContainsSubstring("valid ids are 0 to 261"));
    CHECK_THROWS_AS(tokenizer.token_of(id), Error);
    CHECK_THROWS_AS(tokenizer.is_special(id), Error);
  }
}

TEST_CASE("The tokens of a vocabulary may be written in any order, far from that of their ids") {
  constexpr int count = 10'000;
  for (const bool reversed : {false, true}) {
    std::string vocab = R"("[UNK]":0)";
    for (int i = 1; i < count; ++i)
      vocab += ",\"w" + std::to_string(i) + "\":" + std::to_string(reversed ? count - i : i);
    const auto tokenizer = Tokenizer::parse(
        R"({"pre_tokenizer":{"type":"WhitespaceSplit"},"model":{"type":"WordPiece","vocab":{)" + vocab + "}}}");
    CHECK(tokenizer.vocab_size() == count);
    CHECK(tokenizer.encode("w1 w9999 w77") == (reversed ? Ids{9999, 1, 9923} : Ids{1, 9999, 77}));
  }
}

TEST_CASE("Added tokens take the spaces and word boundaries that they ask for") {
  const auto with = [](const std::string& options) {
    return Tokenizer::parse(R"({"added_tokens":[{"id":5,"content":"key","normalized":false)" + options +
                            R"(}],"model":{"type":"BPE","vocab":{"k":0,"e":1,"y":2," ":3,"x":4},"merges":[]}})");
  };
  CHECK(with("").encode("x key x") == Ids{4, 3, 5, 3, 4});
  CHECK(with(R"(,"lstrip":true)").encode("x  key x") == Ids{4, 5, 3, 4});
  CHECK(with(R"(,"rstrip":true)").encode("x key  x") == Ids{4, 3, 5, 4});
  CHECK(with(R"(,"lstrip":true,"rstrip":true)").encode("key key") == Ids{5, 5});
  CHECK(with("").encode("keyx") == Ids{5, 4});
  CHECK(with(R"(,"single_word":true)").encode("keyx") == Ids{0, 1, 2, 4});
  CHECK(with(R"(,"single_word":true)").encode("x key") == Ids{4, 3, 5});
}

TEST_CASE("Two texts with a gap are written down with the tokens that the vocabulary has for it") {
  CHECK(!Tokenizer::parse(byte_level()).gap_tokens());
  CHECK_THROWS_WITH(Tokenizer::parse(byte_level()).encode_gap("a", "b"), ContainsSubstring("no tokens for a gap"));
  for (const std::string begin : {"<|fim_", "<fim_", "<fim-"}) {
    auto json = byte_level();
    std::int32_t id = 262;
    for (const std::string what : {"middle", "suffix", "prefix", "end"}) {
      const auto spelled = what == "end" ? "<|endoftext|>" : begin + what + (begin[1] == '|' ? "|>" : ">");
      json.insert(json.find("{\"id\":260"), "{\"id\":" + std::to_string(id++) + ",\"content\":\"" + spelled +
                                                "\",\"special\":true,\"normalized\":false},");
      if (what == "suffix") CHECK(!Tokenizer::parse(json).gap_tokens());  // one of them is not there
    }
    const auto tokenizer = Tokenizer::parse(json);
    CHECK(tokenizer.encode_gap("hea", "b") == Ids{260, 264, 256, 'a', 263, 'b', 262});
    CHECK(tokenizer.encode_gap("", "") == Ids{260, 264, 263, 262});
    CHECK(tokenizer.gap_tokens()->ends == Ids{264, 263, 262, 265});
  }
}

TEST_CASE("Several threads may use one tokenizer") {
  const auto tokenizer = Tokenizer::parse(word_piece());
  const auto expected = tokenizer.encode("unhappily happi, un!");
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (auto& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) count += tokenizer.encode("unhappily happi, un!") != expected;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("The tokenizer of the example model gives its texts back") {
  const std::filesystem::path folder = std::filesystem::path(TROIKA_SOURCE_DIR) / "examples" / "model";
  if (!std::filesystem::exists(folder / "tokenizer.json")) TROIKA_SKIP("examples/model has no tokenizer.json");
  const auto tokenizer = Tokenizer::load(folder);
  for (const std::string text : {"12+34=", "sort 9 1 5 -> 1 5 9", "What day is 2024-02-29?\n", "  naïve 😀"}) {
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
  }
}

TEST_CASE("A folder without tokenizer.json says so") {
  const TempFolder folder;
  CHECK_THROWS_WITH(Tokenizer::load(folder.path()), ContainsSubstring("no tokenizer.json"));
}
