// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <string>
#include <vector>

#include <models_files/gguf_bytes.hpp>
#include <support/catch.hpp>
#include <support/temp_folder.hpp>

#include <troika/core/error.hpp>
#include <troika/models/text/tokenizer.hpp>

using namespace troika;
using troika::models::Tokenizer;
using namespace troika::test;
using Catch::Matchers::ContainsSubstring;

namespace {

using Ids = std::vector<std::int32_t>;

enum : std::int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct Token {
  std::string text;
  float score = 0;
  std::int32_t kind = normal;
};

GgufBytes with_tokens(const std::string& model, const std::vector<Token>& tokens) {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<std::int32_t> kinds;
  for (const auto& token : tokens) {
    texts.push_back(token.text);
    scores.push_back(token.score);
    kinds.push_back(token.kind);
  }
  GgufBytes bytes;
  bytes.string("tokenizer.ggml.model", model).strings("tokenizer.ggml.tokens", texts);
  bytes.numbers("tokenizer.ggml.scores", 6, scores).numbers("tokenizer.ggml.token_type", 5, kinds);
  return bytes;
}

// <unk>, <s>, </s> and the 256 bytes: ids 0 to 258.
std::vector<Token> sentence_piece(std::vector<Token> more) {
  std::vector<Token> tokens{{"<unk>", 0, unknown}, {"<s>", 0, control}, {"</s>", 0, control}};
  constexpr char hex[] = "0123456789ABCDEF";
  for (int i = 0; i < 256; ++i) tokens.push_back({std::string("<0x") + hex[i / 16] + hex[i % 16] + ">", 0, byte});
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}
GgufBytes llama(std::vector<Token> more) {
  auto bytes = with_tokens("llama", sentence_piece(std::move(more)));
  bytes.u32("tokenizer.ggml.bos_token_id", 1)
      .u32("tokenizer.ggml.eos_token_id", 2)
      .u32("tokenizer.ggml.unknown_token_id", 0);
  return bytes;
}

GgufBytes gpt2(const std::string& pre = "gpt-2") {
  auto bytes = with_tokens("gpt2", {{"a"},
                                    {"b"},
                                    {"\xc4\xa0"},
                                    {"ab"},
                                    {"\xc4\xa0"
                                     "ab"},
                                    {"<|end|>", 0, control},
                                    {"<tool>", 0, user_defined},
                                    {"1"}});
  return bytes.string("tokenizer.ggml.pre", pre)
      .strings("tokenizer.ggml.merges", {"a b", "\xc4\xa0 ab"})
      .u32("tokenizer.ggml.bos_token_id", 5);
}

GgufBytes bert(const std::string& space) {
  auto bytes = with_tokens("bert", {{"[CLS]", 0, control},
                                    {"[SEP]", 0, control},
                                    {"[UNK]", 0, control},
                                    {space + "un"},
                                    {space.empty() ? "##do" : "do"},
                                    {space + "!"},
                                    {space + "keep", 0, user_defined}});
  return bytes.u32("tokenizer.ggml.unknown_token_id", 2)
      .u32("tokenizer.ggml.bos_token_id", 0)
      .u32("tokenizer.ggml.seperator_token_id", 1);
}

Tokenizer load(const TempFolder& folder, const GgufBytes& bytes) {
  return Tokenizer::load(folder.write("m.gguf", bytes.file()));
}

}  // namespace

TEST_CASE("SentencePiece merges the pair with the highest score first, the leftmost of equals") {
  const TempFolder folder;
  const std::string s = "\xe2\x96\x81";  // 259
  const auto tokenizer =
      load(folder, llama({{s, -9}, {"a", -9}, {"b", -9}, {"ab", -2}, {"ba", -1}, {"aa", -3}, {s + "a", -4}}));
  CHECK(tokenizer.encode("ab", false) == Ids{259, 262});   // "▁a" has a lower score than "ab"
  CHECK(tokenizer.encode("aba", false) == Ids{265, 263});  // "ba" first, then "▁a"
  CHECK(tokenizer.encode("baaa", false) == Ids{259, 263, 264});
  CHECK(tokenizer.encode("aaa", false) == Ids{259, 264, 260});  // the left of two equal pairs
  CHECK(tokenizer.encode("a", true) == Ids{1, 265});
  CHECK(tokenizer.encode("", true) == Ids{1});
  // Characters without a token are their bytes; special tokens are found in the text, and what follows begins anew.
  CHECK(tokenizer.encode("\xc3\xa4", false) == Ids{259, 3 + 0xc3, 3 + 0xa4});
  CHECK(tokenizer.encode("a</s>a", false) == Ids{265, 2, 265});
  CHECK(tokenizer.encode("<0x41>", false) == Ids{259, 3 + '<', 3 + '0', 3 + 'x', 3 + '4', 3 + '1', 3 + '>'});
  CHECK(tokenizer.decode(Ids{1, 265, 262, 259, 3 + 0xc3, 3 + 0xa4}) == "aab \xc3\xa4");
  CHECK(tokenizer.is_special(0));
  CHECK(tokenizer.vocab_size() == 266);
}

TEST_CASE("An unused token of SentencePiece is taken apart again") {
  const TempFolder folder;
  auto bytes = llama({{"a", -9}, {"b", -9}, {"ab", -1, unused}, {"aba", -2}});
  bytes.boolean("tokenizer.ggml.add_space_prefix", false);
  const auto tokenizer = load(folder, bytes);
  CHECK(tokenizer.encode("ab", false) == Ids{259, 260});
  CHECK(tokenizer.encode("aba", false) == Ids{262});  // through the unused one
  CHECK(tokenizer.decode(Ids{259, 262}) == "aaba");
}

TEST_CASE("Without all bytes, a run of unknown characters is one unknown token") {
  const TempFolder folder;
  auto bytes = with_tokens("llama", {{"<unk>", 0, unknown}, {"a", -1}, {"<0x41>", 0, byte}});
  bytes.u32("tokenizer.ggml.unknown_token_id", 0)
      .boolean("tokenizer.ggml.add_space_prefix", false)
      .boolean("tokenizer.ggml.add_bos_token", false);
  CHECK(load(folder, bytes).encode("xyazA", true) == Ids{0, 1, 0});
}

TEST_CASE("Byte-level BPE comes with the pre-tokenizer that the file names") {
  const TempFolder folder;
  const auto tokenizer = load(folder, gpt2());
  CHECK(tokenizer.encode("ab ab", true) == Ids{3, 4});
  CHECK(tokenizer.encode("a<|end|>b<tool>", true) == Ids{0, 5, 1, 6});
  CHECK(tokenizer.decode(Ids{3, 4, 5}) == "ab ab");
  CHECK(tokenizer.decode(Ids{3, 5}, false) == "ab<|end|>");
  CHECK(tokenizer.is_special(5));
  CHECK_FALSE(tokenizer.is_special(6));
  // Llama 3 begins texts with BOS, unless the file says otherwise.
  CHECK(load(folder, gpt2("llama-bpe")).encode("ab", true) == Ids{5, 3});
  CHECK(load(folder, gpt2("llama-bpe").boolean("tokenizer.ggml.add_bos_token", false)).encode("ab", true) == Ids{3});
  for (const std::string pre : {"qwen2", "smollm", "tekken", "llama3", "deepseek-r1-qwen"}) {
    CHECK(load(folder, gpt2(pre)).encode("ab ab1", false) == Ids{3, 4, 7});
  }
}

TEST_CASE("WordPiece is read with spaces marked, as converters write it, and as it was") {
  const TempFolder folder;
  for (const std::string space : {"\xe2\x96\x81", ""}) {
    const auto tokenizer = load(folder, bert(space));
    CHECK(tokenizer.encode("Undo!", true) == Ids{0, 3, 4, 5, 1});
    CHECK(tokenizer.encode("do", true) == Ids{0, 2, 1});
    CHECK(tokenizer.decode(Ids{0, 3, 4, 5, 1}) == "undo!");
    // Controls vanish, those too that Unicode calls white space; tabs and line ends are spaces.
    CHECK(tokenizer.encode("un\x0b\xc2\x85"
                           "do\tun",
                           false) == Ids{3, 4, 3});
    CHECK(tokenizer.token_of(4) == "##do");
    // A token that was added is found as it is spelled, not as a piece of a word.
    CHECK(tokenizer.encode("keep KEEP", false) == Ids{6, 2});
  }
}

TEST_CASE("A GGUF file names the tokens for a gap between texts, in the old way or the new") {
  const TempFolder folder;
  const auto load = [&](const GgufBytes& bytes) { return Tokenizer::load(folder.write("m.gguf", bytes.file())); };
  CHECK(!load(gpt2()).gap_tokens());
  for (const auto& [prefix, suffix, middle] :
       {std::array{"prefix", "suffix", "middle"}, std::array{"fim_pre", "fim_suf", "fim_mid"}}) {
    const auto key = [](const char* role) { return std::string("tokenizer.ggml.") + role + "_token_id"; };
    auto bytes = gpt2();
    bytes.u32(key(prefix), 7).u32(key(suffix), 6);
    CHECK(!load(bytes).gap_tokens());
    bytes.u32(key(middle), 5).u32(key("fim_pad"), 1);
    CHECK(load(bytes).encode_gap("ab", "b") == Ids{7, 3, 6, 1, 5});
    CHECK(load(bytes).gap_tokens()->ends == Ids{7, 6, 5, 1});
  }
  CHECK_THROWS_WITH(load(gpt2().u32("tokenizer.ggml.fim_pre_token_id", 99)),
                    ContainsSubstring("99, which is no token"));
}

TEST_CASE("A GGUF file whose tokenizer makes no sense is refused by one error") {
  const TempFolder folder;
  struct Case {
    const char* what;
    GgufBytes bytes;
    const char* message;
    Fault fault = Fault::bad_file;
  };
  const auto more = [](GgufBytes bytes, auto change) {
    change(bytes);
    return bytes;
  };
  const std::vector<Case> cases{
      {"no tokenizer", GgufBytes(), "no key 'tokenizer.ggml.tokens'"},
      {"no model", GgufBytes().strings("tokenizer.ggml.tokens", {"a"}), "no key 'tokenizer.ggml.model'"},
      {"no token", with_tokens("llama", {}), "has 0 tokens"},
      {"another model", with_tokens("rwkv", {{"a"}}), "is 'rwkv'; supported are gpt2", Fault::unsupported},
      {"another pre-tokenizer", gpt2("poro-chat"), "'poro-chat' is not supported; supported are llama-bpe llama3",
       Fault::unsupported},
      {"a part of a pre-tokenizer's name", gpt2("qwen"), "'qwen' is not supported", Fault::unsupported},
      {"two pre-tokenizers", gpt2("llama3 llama-v3"), "is not supported", Fault::unsupported},
      {"no pre-tokenizer", gpt2(""), "'' is not supported", Fault::unsupported},
      {"tokens that are numbers",
       GgufBytes().string("tokenizer.ggml.model", "gpt2").numbers<float>("tokenizer.ggml.tokens", 6, {1}),
       "array of f32; valid are strings"},
      {"a token twice", llama({{"a"}, {"a"}}), "the token 'a' has the ids 259 and 260"},
      {"a token that is not UTF-8", llama({{"a\xff"}}), "token 259"},
      {"too few scores",
       more(GgufBytes(),
            [](GgufBytes& b) {
              b.string("tokenizer.ggml.model", "llama")
                  .strings("tokenizer.ggml.tokens", {"a", "b"})
                  .numbers<float>("tokenizer.ggml.scores", 6, {1});
            }),
       "'tokenizer.ggml.scores' at byte"},
      {"no scores",
       more(GgufBytes(),
            [](GgufBytes& b) { b.string("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", {"a"}); }),
       "no key 'tokenizer.ggml.scores'"},
      {"a score that is no number", llama({{"a", std::numeric_limits<float>::quiet_NaN()}}),
       "element 259, which is not finite"},
      {"too many kinds",
       more(GgufBytes(),
            [](GgufBytes& b) {
              b.string("tokenizer.ggml.model", "llama")
                  .strings("tokenizer.ggml.tokens", {"a"})
                  .numbers<std::int32_t>("tokenizer.ggml.token_type", 5, {1, 1});
            }),
       "has 2 elements for 1 tokens"},
      {"a kind of 7", llama({{"a", 0, 7}}), "has 7 as element 259; valid are the integers 0 to 6"},
      {"a byte of -1", llama({{"<0x-1>", 0, byte}}),
       "token 259 is of the kind byte, but is spelled '<0x-1>'; valid are <0x00> to <0xFF>"},
      {"a byte in lower case", llama({{"<0xab>", 0, byte}}), "is spelled '<0xab>'"},
      {"BOS past the end", more(gpt2(), [](GgufBytes& b) { b.u32("tokenizer.ggml.eos_token_id", 8); }),
       "is 8, which is no token; ids are 0 to 7"},
      {"BOS that is not there",
       more(with_tokens("gpt2", {{"a"}}),
            [](GgufBytes& b) {
              b.string("tokenizer.ggml.pre", "gpt-2")
                  .strings("tokenizer.ggml.merges", {})
                  .boolean("tokenizer.ggml.add_bos_token", true);
            }),
       "is true, but no key names that token"},
      {"no merges", more(with_tokens("gpt2", {{"a"}}), [](GgufBytes& b) { b.string("tokenizer.ggml.pre", "gpt-2"); }),
       "no key 'tokenizer.ggml.merges'"},
      {"a merge of nothing",
       more(with_tokens("gpt2", {{"a"}}),
            [](GgufBytes& b) { b.string("tokenizer.ggml.pre", "gpt-2").strings("tokenizer.ggml.merges", {"a "}); }),
       "merge 0 has an empty token"},
      {"a merge of one",
       more(with_tokens("gpt2", {{"a"}}),
            [](GgufBytes& b) { b.string("tokenizer.ggml.pre", "gpt-2").strings("tokenizer.ggml.merges", {"a"}); }),
       "is not two tokens"},
      {"a merge of strangers",
       more(with_tokens("gpt2", {{"a"}}),
            [](GgufBytes& b) { b.string("tokenizer.ggml.pre", "gpt-2").strings("tokenizer.ggml.merges", {"a a"}); }),
       "which the vocabulary lacks"},
      {"extra whitespace removed",
       more(llama({}), [](GgufBytes& b) { b.boolean("tokenizer.ggml.remove_extra_whitespaces", true); }),
       "remove_extra_whitespaces", Fault::unsupported},
      {"WordPiece without [UNK]", with_tokens("bert", {{"a"}}), "no token [UNK]"},
      {"an added token too long", llama({{std::string(2000, 'x'), 0, user_defined}}), "is longer than 1024 bytes"},
  };
  for (const auto& c : cases) {
    INFO(c.what);
    std::string message;
    Fault fault = Fault::invalid_argument;
    try {
      load(folder, c.bytes);
    } catch (const Error& error) {
      message = error.what();
      fault = error.fault();
    }
    CHECK_THAT(message, ContainsSubstring(c.message));
    CHECK(fault == c.fault);
    CHECK_THAT(message, ContainsSubstring("m.gguf"));
  }
}

TEST_CASE("Long texts of one character are tokenized in time that grows with their length") {
  const TempFolder folder;
  std::vector<Token> tokens;
  for (std::size_t length = 1; length <= 1024; length *= 2)
    tokens.push_back({std::string(length, 'a'), -static_cast<float>(length), length == 64 ? unused : normal});
  auto bytes = llama(std::move(tokens));
  bytes.boolean("tokenizer.ggml.add_space_prefix", false);
  const auto tokenizer = load(folder, bytes);
  const auto ids = tokenizer.encode(std::string(1 << 20, 'a'), false);
  CHECK(ids == Ids(1 << 10, 269));
}
