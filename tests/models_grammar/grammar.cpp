// SPDX-License-Identifier: Apache-2.0
#include <troika/models/grammar/grammar.hpp>

#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <support/catch.hpp>
#include <support/schema_validator.hpp>

#include <troika/core/error.hpp>

using troika::models::Grammar;
using troika::models::GrammarState;
using troika::test::SchemaValidator;
using Json = nlohmann::json;

namespace {

bool accepts(const Grammar& grammar, const std::string& text) {
  GrammarState state(grammar);
  return state.advance(text) && state.accepts();
}
bool accepts(const std::string& schema, const std::string& text) { return accepts(Grammar::of_schema(schema), text); }

// A text that the grammar accepts, byte by byte; empty where it grew too long.
std::string random_walk(const Grammar& grammar, std::mt19937& random, std::size_t most = 4000) {
  GrammarState state(grammar);
  std::string text;
  while (text.size() < most) {
    std::string next;
    for (int byte = 0; byte < 256; ++byte) {
      GrammarState tried = state;
      const char c = static_cast<char>(byte);
      // Ends are likelier than they are among bytes, so that values become whole.
      if (tried.advance({&c, 1})) next.append(c == '"' || c == '}' || c == ']' ? 12 : 1, c);
    }
    if (next.empty() || (state.accepts() && random() % 4 == 0)) {
      if (!state.accepts()) throw std::runtime_error("a dead end behind " + text);
      return text;
    }
    const char c = next[random() % next.size()];
    state.advance({&c, 1});
    text += c;
  }
  return {};
}

const std::vector<std::string> schemas{
    R"({})",
    R"({"type":"object"})",
    R"({"type":"array"})",
    R"({"type":["string","null","integer"]})",
    R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},"ok":{"type":"boolean"}},"required":["age"]})",
    R"({"type":"object","properties":{"a":{"type":"number"},"ab":{"type":"null"},"é":{"type":"boolean"}},"additionalProperties":{"type":"string"}})",
    R"({"type":"object","properties":{"q\"":{"type":"number"}},"additionalProperties":true,"required":["q\"","more"]})",
    R"({"type":"array","items":{"type":"string","minLength":2,"maxLength":5},"minItems":2,"maxItems":4})",
    R"({"type":"array","items":{"enum":["red","green","grey",1,12,null,{"a":[1]}]},"minItems":1})",
    R"({"type":"array","items":{"type":"boolean"},"maxItems":0})",
    R"({"anyOf":[{"type":"integer"},{"type":"object","properties":{"x":{"$ref":"#"}},"required":["x"]}]})",
    R"({"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"value":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["value","next"]}}})",
    R"({"oneOf":[{"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},"required":["kind"]},
                 {"type":"object","properties":{"kind":{"const":"b"},"y":{"type":"string"}},"required":["kind"]},{"type":"string"}]})",
    R"({"type":"string","pattern":"^[A-Z]{2,3}-\\d+(\\.[a-f]|x)?$"})",
    R"({"type":"string","pattern":"a.c"})",
    R"({"type":"string","pattern":"^(\"[^a-z]*\"|\\\\\\w)+$"})",
    R"({"type":"object","properties":{"d":{"type":"array","items":{"type":"array","items":{"type":"number"},"maxItems":2},"maxItems":2}}})",
    R"({"type":"array","items":{"type":"integer","minimum":-12,"maximum":345}})",
    R"({"type":["integer","null"],"exclusiveMinimum":7,"multipleOf":6})",
    R"({"type":"array","items":{"type":"number","minimum":0,"maximum":1}})",
    R"({"type":"array","items":{"type":"number","exclusiveMinimum":-20,"exclusiveMaximum":3}})",
    R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"minItems":1})",
    R"({"type":"array","prefixItems":[{"type":"null"},{"type":"boolean"}],"items":{"type":"integer"}})",
    R"({"type":"array","items":{"$ref":"#/$defs/c"},"uniqueItems":true,"minItems":1,"maxItems":3,"$defs":{"c":{"enum":["a","ab",1,null]}}})",
    R"({"allOf":[{"$ref":"#/definitions/x"}],"title":"T","definitions":{"x":{"type":"object","additionalProperties":{"type":"null"}}}})",
};

}  // namespace

TEST_CASE("what a grammar accepts parses and is valid, whatever way it goes") {
  std::mt19937 random(5);
  for (const auto& schema : schemas) {
    CAPTURE(schema);
    const auto grammar = Grammar::of_schema(schema);
    const SchemaValidator valid(Json::parse(schema));
    int whole = 0;
    for (int i = 0; i < 25; ++i) {
      const auto text = random_walk(grammar, random);
      if (text.empty()) continue;
      ++whole;
      CAPTURE(text);
      REQUIRE(Json::accept(text));
      CHECK(valid(Json::parse(text)));
    }
    CHECK(whole > 1);
  }
}

TEST_CASE("JSON as people and programs write it is accepted") {
  const auto any = Grammar::of_schema("{}");
  for (const std::string text : {R"({"a": [1, -2.5e+3, "x\n\u00e4\ud83d\ude00é😀"], "b": {}, "c": [], "d": null})",
                                 "{\n  \"a\": [\n    1\n  ]\n}", "12", "\"\"", " true"})
    CHECK(accepts(any, text));
  for (const std::string text : {"{a: 1}", "[1,]", "01", "1.", "\"\\x\"", "\"\x01\"", "\"\\ud800\"", "\"\xc0\x80\"",
                                 "\"\xed\xa0\x80\"", "{} {}", "tru", "1e400", ""})
    CHECK_FALSE(accepts(any, text));
  CHECK(accepts(Grammar::json_object(), "{\"a\":1}"));
  CHECK_FALSE(accepts(Grammar::json_object(), "[1]"));
}

TEST_CASE("a schema says which members come, and which need not") {
  const std::string schema =
      R"({"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"string"}},"required":["a"]})";
  CHECK(accepts(schema, R"({"b": 1, "a": "x"})"));
  CHECK(accepts(schema, R"({"a":"x"})"));
  CHECK_FALSE(accepts(schema, R"({"a":"x","b":1})"));  // in the order of the schema
  CHECK_FALSE(accepts(schema, R"({"b":1})"));
  CHECK_FALSE(accepts(schema, R"({"a":"x","c":1})"));
  CHECK_FALSE(accepts(schema, R"({"b":1.5,"a":"x"})"));
  const std::string open = R"({"properties":{"ab":{"type":"null"}},"additionalProperties":{"type":"integer"}})";
  CHECK(accepts(open, R"({"ab":null,"a":1,"abc":2,"":3})"));
  CHECK(accepts(open, R"({"x":3})"));
  CHECK_FALSE(accepts(open, R"({"ab":1})"));
  CHECK_FALSE(accepts(open, R"({"a":1,"ab":1})"));
  CHECK_FALSE(accepts(open, R"({"a\u0062":1})"));
}

TEST_CASE("bounds and multiples leave exactly the whole numbers that they should") {
  for (const std::string bounds :
       {R"("minimum":0)", R"("minimum":-5,"maximum":5)", R"("exclusiveMinimum":-100,"exclusiveMaximum":100)",
        R"("minimum":7,"maximum":7)", R"("maximum":-1)", R"("minimum":99,"maximum":1001)",
        R"("minimum":-120,"maximum":-37)", R"("multipleOf":7)", R"("minimum":12,"maximum":800,"multipleOf":9)",
        R"("minimum":-0.5,"maximum":10.9)", R"("minimum":1,"exclusiveMinimum":1,"maximum":9,"exclusiveMaximum":12)",
        R"("maximum":1e30,"minimum":-1e30)"}) {
    const auto grammar = Grammar::of_schema("{\"type\":\"integer\"," + bounds + "}");
    const SchemaValidator valid(Json::parse("{\"type\":\"integer\"," + bounds + "}"));
    CAPTURE(bounds);
    std::vector<int> wrong;
    for (int number = -1200; number <= 12000; ++number)
      if (accepts(grammar, std::to_string(number)) != valid(number)) wrong.push_back(number);
    CHECK(wrong == std::vector<int>());
    for (const char* none : {"01", "-", "", "1.0", "--1"}) CHECK_FALSE(accepts(grammar, none));
  }
  CHECK(accepts(R"({"type":"integer","minimum":0})", "9999999999999999"));
  CHECK_FALSE(accepts(R"({"type":"integer","maximum":9999999999999998})", "9999999999999999"));
}

TEST_CASE("bounds leave the numbers with fractions that they should") {
  for (const std::string bounds :
       {R"("minimum":0,"maximum":1)", R"("exclusiveMinimum":0)", R"("exclusiveMinimum":-3,"exclusiveMaximum":11)",
        R"("minimum":-20,"maximum":-10)", R"("maximum":0)", R"("exclusiveMaximum":0)", R"("minimum":10,"maximum":10)",
        R"("exclusiveMinimum":-1,"maximum":0)"}) {
    const auto grammar = Grammar::of_schema("{\"type\":\"number\"," + bounds + "}");
    const SchemaValidator valid(Json::parse("{\"type\":\"number\"," + bounds + "}"));
    CAPTURE(bounds);
    for (int tenths = -300; tenths <= 300; ++tenths) {
      const auto magnitude = std::to_string(std::abs(tenths) / 10) + "." + std::to_string(std::abs(tenths) % 10);
      const auto text = (tenths < 0 ? "-" : "") + magnitude;
      // A bound itself is written without a fraction
      if (tenths % 10 == 0 && !accepts(grammar, text)) continue;
      if (accepts(grammar, text) != valid(Json::parse(text))) CHECK(text == "right");
      if (tenths % 10 == 0 && accepts(grammar, text.substr(0, text.size() - 2)) != valid(Json::parse(text)))
        CHECK(text == "right without a fraction");
    }
  }
  CHECK(accepts(R"({"type":"number","minimum":0,"maximum":1})", "0.875"));
  CHECK(accepts(R"({"type":"number","minimum":0,"maximum":1})", "1"));
  CHECK_FALSE(accepts(R"({"type":"number","minimum":0,"maximum":1})", "1.000001"));
  CHECK_FALSE(accepts(R"({"type":"number","exclusiveMinimum":0})", "0.000"));
  CHECK(accepts(R"({"type":"number","exclusiveMinimum":0})", "0.001"));
}

TEST_CASE("arrays have the items of a list first, and sets have each once") {
  const std::string pair = R"({"prefixItems":[{"type":"integer"},{"type":"string"}],"minItems":2})";
  CHECK(accepts(pair, R"([1, "a"])"));
  CHECK_FALSE(accepts(pair, R"(["a", 1])"));
  CHECK_FALSE(accepts(pair, "[1]"));
  CHECK_FALSE(accepts(pair, R"([1, "a", 2])"));
  const std::string more = R"({"prefixItems":[{"type":"string"}],"items":{"type":"integer"}})";
  for (const char* text : {"[]", R"(["a"])", R"(["a", 1])", R"(["a", 1, 2, 3, 4])"}) CHECK(accepts(more, text));
  for (const char* text : {"[1]", R"(["a", "b"])", R"(["a", 1, "b"])"}) CHECK_FALSE(accepts(more, text));
  CHECK_FALSE(accepts(R"({"prefixItems":[{}],"items":false})", "[1,2]"));
  const std::string set = R"({"type":"array","items":{"enum":["a","ab","b"]},"uniqueItems":true,"minItems":1})";
  for (const char* text : {R"(["a"])", R"(["b", "a"])", R"(["ab", "b", "a"])"}) CHECK(accepts(set, text));
  for (const char* text : {"[]", R"(["a", "a"])", R"(["b", "a", "b"])", R"(["ab", "b", "a", "c"])"})
    CHECK_FALSE(accepts(set, text));
}

TEST_CASE("a text that must not go on is complete") {
  GrammarState state(Grammar::of_schema(R"({"type":"boolean"})"));
  CHECK_FALSE(state.accepts());
  CHECK(state.advance("fal"));
  CHECK_FALSE(state.advance("x"));
  CHECK(state.advance("se"));
  CHECK(state.complete());
  GrammarState number(Grammar::of_schema(R"({"type":"integer"})"));
  CHECK(number.advance("1"));
  CHECK(number.accepts());
  CHECK_FALSE(number.complete());
}

TEST_CASE("what a grammar cannot say is refused by its keyword and place") {
  const auto why = [](const std::string& schema) {
    try {
      (void)Grammar::of_schema(schema);
    } catch (const troika::Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  const auto refused = [&](const std::string& schema, const std::vector<std::string>& words) {
    CAPTURE(schema);
    for (const auto& word : words) CHECK_THAT(why(schema), Catch::Matchers::ContainsSubstring(word));
  };
  refused(R"({"properties":{"a":{"not":{}}}})", {"'not'", "'#/properties/a'"});
  refused(R"({"type":"string","minimum":1})", {"'minimum'", "here"});
  refused(R"({"type":"number","minimum":0.5})", {"'minimum'", "whole"});
  refused(R"({"type":"integer","exclusiveMinimum":true})", {"'exclusiveMinimum'", "a number"});
  refused(R"({"type":"integer","minimum":3,"exclusiveMaximum":3})", {"bounds"});
  refused(R"({"type":"number","minimum":3,"exclusiveMaximum":3})", {"bounds"});
  refused(R"({"type":"integer","minimum":1e30})", {"'minimum'", "leaves no number"});
  refused(R"({"type":"integer","minimum":1,"maximum":5,"multipleOf":6})", {"no value"});
  refused(R"({"type":"integer","multipleOf":1000})", {"'multipleOf'", "100"});
  refused(R"({"type":"number","multipleOf":0.1})", {"'multipleOf'"});
  refused(R"({"type":"array","uniqueItems":true})", {"'uniqueItems'"});
  refused(R"({"type":"array","items":{"type":"integer"},"uniqueItems":true})", {"'uniqueItems'", "enum"});
  refused(R"({"type":"array","items":{"enum":[1,2]},"uniqueItems":true,"minItems":3})", {"at least 3"});
  refused(R"({"type":"array","prefixItems":[{}],"minItems":2})", {"at least 2"});
  refused(R"({"type":"string","items":{}})", {"'items'", "here"});
  refused(R"x({"type":"string","pattern":"(?=a)"})x", {"pattern", "byte 2"});
  refused(R"({"type":"string","pattern":"a**"})", {"quantifier"});
  refused(R"({"type":"string","format":"uri"})", {"format"});
  refused(R"({"type":"string","maxLength":9999999999})", {"too large"});
  refused(R"({"$ref":"http://x"})", {"http://x"});
  refused(R"({"$ref":"#/$defs/x"})", {"leads to nothing"});
  refused(R"({"$ref":"#"})", {"no value"});
  refused(R"({"properties":{"a":{"$ref":"#"}},"required":["a"]})", {"never end"});
  refused(R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", {"oneOf"});
  refused(R"({"type":"strong"})", {"strong"});
  refused(R"({"type":"string","enum":[1]})", {"no value"});
  refused(R"({"additionalProperties":false,"required":["a"]})", {"'a'"});
  refused("[]", {"object"});
  refused("{", {"JSON"});
}

TEST_CASE("hostile schemas cost bounded memory and time") {
  const auto begin = std::chrono::steady_clock::now();
  std::mt19937 random(1);
  const auto try_one = [&](const std::string& schema) {
    try {
      const auto grammar = Grammar::of_schema(schema);
      GrammarState state(grammar);
      for (const char* text : {"[[[[[[[[[[[[", "{\"a\":{\"a\":{\"a\":", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
        GrammarState tried = state;
        for (std::string rest = text; !rest.empty() && tried.advance({rest.data(), 1}); rest.erase(0, 1))
          CHECK(tried.positions().size() <= 256);
      }
    } catch (const troika::Error&) {
    }
  };
  try_one(
      R"({"anyOf":[{"$ref":"#"},{"type":"string"},{"type":"array","items":{"$ref":"#"}},{"type":"array","items":{"$ref":"#"},"minItems":1},{"items":{"$ref":"#"},"minItems":2}]})");
  try_one(R"({"pattern":"^(((a{1000}){1000}){1000})$"})");
  try_one(R"({"pattern":"^(a*)*(a|a)*(((a*)*)*b)*$"})");
  try_one(R"({"pattern":")" + std::string(30000, '(') + "\"}");
  std::string chain = R"({"$ref":"#/$defs/0","$defs":{)";
  for (int i = 0; i < 1500; ++i)
    chain += "\"" + std::to_string(i) + R"(":{"$ref":"#/$defs/)" + std::to_string(i + 1) + "\"},";
  try_one(chain + R"("1500":{}}})");
  std::string wide = R"({"properties":{)", one_of = R"({"oneOf":[{})";
  for (int i = 0; i < 3000; ++i)
    wide += "\"a" + std::to_string(i) + "\":{},", one_of += ",{\"const\":" + std::to_string(i) + "}";
  try_one(wide + R"("z":{}}})");
  try_one(one_of + "]}");
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(60));
}
