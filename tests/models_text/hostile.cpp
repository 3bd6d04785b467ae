// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include <support/catch.hpp>

#include <troika/core/error.hpp>
#include <troika/models/text/tokenizer.hpp>

#include "small_tokenizers.hpp"

using namespace troika;
using namespace troika::models;
using namespace troika::test;
using Catch::Matchers::ContainsSubstring;

namespace {

const std::string model = R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]})";

// A file with this beside the model.
std::string with(const std::string& part) { return "{" + model + "," + part + "}"; }
std::string model_of(const std::string& fields) { return "{\"model\":{" + fields + "}}"; }

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

TEST_CASE("A hostile tokenizer.json is one clear error") {
  struct Case {
    std::string json;
    const char* message;
    Fault fault = Fault::bad_file;
  };
  std::string deep = "{\"normalizer\":";
  for (int i = 0; i < 200000; ++i) deep += R"({"type":"Sequence","normalizers":[)";
  const Case cases[] = {
      {"", "not valid JSON"},
      {"[]", "must be a JSON object"},
      {"{}", "no field 'model'"},
      {"{\"model\":1}", "must be a JSON object"},
      {"{\"model\":{}}", "no field 'vocab'"},
      {deep, "nested deeper"},
      {model_of(R"("type":"Unigram","vocab":[["a",-1.0]])"), "'Unigram' is not supported; supported are BPE, WordPiece",
       Fault::unsupported},
      {model_of(R"("type":"BPE","vocab":[],"merges":[])"), "must be a JSON object"},
      {model_of(R"("type":"BPE","vocab":{"a":0})"), "no field 'merges'"},
      {model_of(R"("type":"BPE","vocab":{"a":0,"b":0},"merges":[])"), "belongs to both 'a' and 'b'"},
      {model_of(R"("type":"BPE","vocab":{"a":0,"a":1},"merges":[])"), "twice"},
      {model_of(R"("type":"BPE","vocab":{"a":-1},"merges":[])"), "the id of 'a' is -1"},
      {model_of(R"("type":"BPE","vocab":{"a":2147483647},"merges":[])"), "the id of 'a' is 2147483647"},
      {model_of(R"("type":"BPE","vocab":{"a":4294967296},"merges":[])"), "the id of 'a'"},
      {model_of(R"("type":"BPE","vocab":{"a":4099},"merges":[])"), "valid values are the integers 0 to 4098"},
      {model_of(R"("type":"BPE","vocab":{"a":1e300},"merges":[])"), "the id of 'a'"},
      {model_of(R"("type":"BPE","vocab":{"a":"0"},"merges":[])"), "the id of 'a' is '0'"},
      {model_of(R"("type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"])"), "'ab', which the vocabulary lacks"},
      {model_of(R"("type":"BPE","vocab":{"a":0,"ab":1},"merges":["a b"])"), "'b', which the vocabulary lacks"},
      {model_of(R"("type":"BPE","vocab":{"a":0},"merges":["a"])"), "not two tokens"},
      {model_of(R"("type":"BPE","vocab":{"a":0},"merges":["a a a"])"), "not two tokens"},
      {model_of(R"("type":"BPE","vocab":{"a":0,"":1},"merges":["a "])"), "empty token"},
      {model_of(R"("type":"BPE","vocab":{"a":0,"":1},"merges":[" a"])"), "empty token"},
      {model_of(R"("type":"BPE","vocab":{"a":0},"merges":[["a"]])"), "pair of strings"},
      {model_of(R"("type":"BPE","vocab":{"a":0},"merges":[["a",1]])"), "pair of strings"},
      {model_of(R"("type":"BPE","vocab":{"a":0},"merges":{"a":1}})"), "not valid JSON"},
      {model_of(R"("type":"BPE","vocab":{"a":0},"merges":{"a":1})"), "must be a list"},
      {model_of(R"("type":"BPE","vocab":{"a":0},"merges":[],"unk_token":"<unk>")"),
       "'<unk>', which the vocabulary lacks"},
      {model_of(R"("type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"],"continuing_subword_prefix":"##")"),
       "does not begin with the prefix"},
      {model_of(R"("type":"WordPiece","vocab":{"a":0})"), "'[UNK]', which the vocabulary lacks"},
      {model_of(R"("type":"WordPiece","vocab":{"[UNK]":0},"max_input_chars_per_word":0)"),
       "max_input_chars_per_word is 0"},
      {with(R"("added_tokens":{})"), "must be a list"},
      {with(R"("added_tokens":[{"id":3}])"), "no field 'content'"},
      {with(R"("added_tokens":[{"content":"x"}])"), "no field 'id'"},
      {with(R"("added_tokens":[{"id":3,"content":""}])"), "must not be empty"},
      {with(R"("added_tokens":[{"id":0,"content":"x"}])"), "belongs to both 'a' and 'x'"},
      {with(R"("added_tokens":[{"id":5,"content":"a"}])"), "'a' has the ids 0 and 5"},
      {with(R"("added_tokens":[{"id":2147483647,"content":"x"}])"), "far beyond"},
      {with(R"("added_tokens":[{"id":-1,"content":"x"}])"), "id is -1"},
      {with(R"("added_tokens":[{"id":3,"content":"x","special":1}])"), "must be true or false"},
      {with(R"("added_tokens":[{"id":3,"content":")" + std::string(5000, 'x') + R"("}])"), "longer than"},
      {with(R"("normalizer":{"type":"Precompiled"})"), "'Precompiled' is not supported", Fault::unsupported},
      {with(R"("normalizer":{})"), "no field 'type'"},
      {with(R"("normalizer":{"type":"Replace","content":"x"})"), "no field 'pattern'"},
      {with(R"("normalizer":{"type":"Replace","pattern":{"String":""},"content":"x"})"), "must not be empty"},
      {with(R"("normalizer":{"type":"Replace","pattern":{"Regex":"("},"content":"x"})"), "is not valid at byte"},
      {with(R"("normalizer":{"type":"Replace","pattern":{},"content":"x"})"), "{\"String\": ...}"},
      {with(R"("pre_tokenizer":{"type":"UnicodeScripts"})"), "'UnicodeScripts' is not supported", Fault::unsupported},
      {with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"[a"},"behavior":"Isolated"})"),
       "is not valid at byte"},
      {with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":""},"behavior":"Isolated"})"), "a pattern has 1 to"},
      {with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":")" + repeated(R"(\\w)", 300) + R"("}})"),
       "too many of"},
      {with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"((a{99}){99}){99}"}})"), "is not valid at byte"},
      {with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\C"},"behavior":"Isolated"})"),
       "is not valid at byte"},
      {with(R"("pre_tokenizer":{"type":"Split","pattern":{"String":"x"},"behavior":"Sideways"})"), "valid are Removed"},
      {with(R"("pre_tokenizer":{"type":"Metaspace","replacement":"ab"})"), "one character"},
      {with(R"("pre_tokenizer":{"type":"Metaspace","prepend_scheme":"often"})"), "valid are always, first, never"},
      {with(R"("pre_tokenizer":{"type":"Sequence","pretokenizers":3})"), "must be a list"},
      {with(R"("decoder":{"type":"CTC"})"), "'CTC' is not supported", Fault::unsupported},
      {with(R"("decoder":{"type":"Strip","content":"","start":1,"stop":0})"), "one character"},
      {with(R"("decoder":{"type":"Strip","content":" ","start":-1,"stop":0})"), "start is -1"},
      {with(R"("post_processor":{"type":"Other"})"), "'Other' is not supported", Fault::unsupported},
      {with(R"("post_processor":{"type":"BertProcessing","sep":["x",99],"cls":["y",0]})"),
       "is 99; valid values are the integers 0 to 2"},
      {with(R"("post_processor":{"type":"BertProcessing","sep":["x"],"cls":["y",0]})"), "a token and its id"},
      {with(
           R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"s","type_id":0}}],"special_tokens":{}})"),
       "no field 's'"},
      {with(R"("post_processor":{"type":"TemplateProcessing","single":[],"special_tokens":{}})"),
       "no place for the text"},
      {with(
           R"("post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},{"Sequence":{"id":"A"}}],"special_tokens":{}})"),
       "text twice", Fault::unsupported},
  };
  for (const auto& hostile : cases) {
    INFO(hostile.json.substr(0, 200));
    try {
      Tokenizer::parse(hostile.json, "somewhere/tokenizer.json");
      FAIL_CHECK("was accepted");
    } catch (const Error& error) {
      CHECK_THAT(error.what(), ContainsSubstring(hostile.message));
      CHECK_THAT(error.what(), ContainsSubstring("somewhere/tokenizer.json"));
      CHECK(error.fault() == hostile.fault);
    }
  }
  CHECK(Tokenizer::parse("{" + model + "}").encode("ab") == std::vector<std::int32_t>{2});
}

TEST_CASE("A tokenizer.json cut at any byte is refused") {
  const auto whole = word_piece();
  for (std::size_t length = 0; length < whole.size(); ++length) {
    CHECK_THROWS_AS(Tokenizer::parse(std::string_view(whole).substr(0, length)), Error);
  }
}

TEST_CASE("A file whose replacements multiply a text is stopped") {
  std::string steps;
  for (int i = 0; i < 40; ++i)
    steps += std::string(i ? "," : "") + R"({"type":"Replace","pattern":{"String":"a"},"content":"aa"})";
  const auto normalizing = Tokenizer::parse(with(R"("normalizer":{"type":"Sequence","normalizers":[)" + steps + "]}"));
  CHECK_THROWS_WITH(normalizing.encode("aaaa"), ContainsSubstring("times longer"));
  const auto decoding = Tokenizer::parse(with(R"("decoder":{"type":"Sequence","decoders":[)" + steps + "]}"));
  const std::vector<std::int32_t> ids{0, 0, 0};
  CHECK_THROWS_WITH(decoding.decode(ids), ContainsSubstring("times longer"));
}

TEST_CASE("A file whose pre-tokenizers multiply a text is stopped, and one that only marks each piece is not") {
  const auto sequence = [](std::string steps) {
    return Tokenizer::parse(with(R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[)" + steps + "]}"));
  };
  const std::string bytes = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false})";
  const auto marks = [](const std::string& mark) { return R"({"type":"Metaspace","replacement":")" + mark + R"("})"; };
  std::string doubled_bytes = bytes, doubled_pieces = marks("a");
  for (int i = 0; i < 40; ++i) {
    doubled_bytes += "," + bytes;
    doubled_pieces += R"(,{"type":"Split","pattern":{"Regex":"."}},)" + marks(std::string(1, char('b' + i % 20)));
  }
  CHECK_THROWS_WITH(sequence(doubled_bytes).encode("\xc3\xab"), ContainsSubstring("times longer"));
  CHECK_THROWS_WITH(sequence(doubled_pieces).encode("z"), ContainsSubstring("more pieces"));

  const auto marking = sequence(R"({"type":"Digits","individual_digits":true},)" + marks("\xe2\x96\x81") + "," + bytes);
  std::string digits;
  for (int i = 0; i < 10000; ++i) digits += "7";
  CHECK_NOTHROW(marking.encode(digits));
}

TEST_CASE("An expression that backtracks without end is stopped") {
  const auto tokenizer = Tokenizer::parse(
      with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a+)+$|(a|aa)+x"},"behavior":"Isolated"})"));
  CHECK_THROWS_WITH(tokenizer.encode(std::string(200, 'a') + "b"), ContainsSubstring("cannot be run on this text"));
}

TEST_CASE("An expression that needs memory for each character is stopped") {
  const auto tokenizer = Tokenizer::parse(
      with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"((a|b)(a|b))*c|a"},"behavior":"Isolated"})"));
  CHECK(tokenizer.encode("abaa").size() == 4);
  CHECK_THROWS_WITH(tokenizer.encode(std::string(1'000'000, 'a')), ContainsSubstring("cannot be run on this text"));
}

TEST_CASE("A merge that makes its own parts again ends") {
  const auto tokenizer = Tokenizer::parse(
      R"({"model":{"type":"BPE","vocab":{"a":0,"aa":1,"aaa":2},"merges":["a aa","aa a","a a","a aa"]}})");
  CHECK(tokenizer.encode("aaaaaaa").size() <= 7);
  CHECK(tokenizer.decode(tokenizer.encode("aaaa")).find('a') == 0);
}
