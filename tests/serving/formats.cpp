// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"

#include <string>

#include "api_fixture.hpp"

using namespace troika::test;
using Catch::Matchers::ContainsSubstring;

namespace {
const Json hi = Json::array({{{"role", "user"}, {"content", "Hi"}}});
// As text: a Json would sort the properties.
std::string with_schema(const std::string& model_and_prompt, const std::string& format) {
  return "{" + model_and_prompt + ",\"stream\":false," + format + "}";
}
}  // namespace

TEST_CASE("a format becomes the grammar of the answer, with the properties in the order of the request") {
  ApiFixture api;
  const std::string schema =
      R"({"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"string"}},"required":["b","a"]})";
  const std::string chat = R"("model":"chat","messages":[{"role":"user","content":"Hi","properties":{"b":1}}])";
  const auto constraint = [&](const std::string& target, const std::string& body) {
    const auto answer = api.ask("POST", target, body);
    INFO(answer.body);
    REQUIRE(answer.status == 200);
    return api.asked().constraint;
  };
  for (const auto& asked :
       {constraint("/api/generate", with_schema(R"("model":"small","prompt":"a")", "\"format\":" + schema)),
        constraint("/api/chat", with_schema(chat, "\"format\":" + schema)),
        constraint("/v1/chat/completions",
                   with_schema(chat, R"("response_format":{"type":"json_schema","json_schema":{"name":"x","schema":)" +
                                         schema + "}}"))}) {
    REQUIRE(asked);
    troika::models::GrammarState state(asked->grammar);
    CHECK_FALSE(state.advance(R"({"a")"));
    CHECK(state.advance(R"({"b": 1, "a": "x"})"));
    CHECK(state.complete());
    CHECK((*asked->tokens)['a'] == "a");
    CHECK((*asked->tokens)[261].empty());
  }
  for (const auto& asked :
       {constraint("/api/generate", R"({"model":"small","prompt":"a","format":"json"})"),
        constraint("/v1/chat/completions", with_schema(chat, R"("response_format":{"type":"json_object"})"))}) {
    REQUIRE(asked);
    troika::models::GrammarState state(asked->grammar);
    CHECK_FALSE(state.advance("[1]"));
    CHECK(state.advance(R"({"x":[1]})"));
  }
  CHECK_FALSE(constraint("/api/generate", R"({"model":"small","prompt":"a","format":""})"));
  CHECK_FALSE(constraint("/v1/chat/completions", with_schema(chat, R"("response_format":{"type":"text"})")));
}

TEST_CASE("a format that cannot be kept is refused with its place, before a model is loaded") {
  ApiFixture api;
  const auto refused = [&](const std::string& target, const Json& body) {
    const auto answer = api.post(target, body);
    CHECK(answer.status == 400);
    return answer.body;
  };
  const auto generate = [&](const Json& format) {
    return refused("/api/generate", {{"model", "small"}, {"prompt", "a"}, {"format", format}});
  };
  CHECK_THAT(generate({{"properties", {{"a", {{"not", 1}}}}}}),
             ContainsSubstring("'not'") && ContainsSubstring("#/properties/a"));
  CHECK_THAT(generate("xml"), ContainsSubstring("format"));
  CHECK_THAT(generate(1), ContainsSubstring("format"));
  const auto respond = [&](const Json& format) {
    return refused("/v1/chat/completions", {{"model", "chat"}, {"messages", hi}, {"response_format", format}});
  };
  CHECK_THAT(respond({{"type", "json_schema"}, {"json_schema", {{"schema", {{"type", "number"}, {"minimum", 0.5}}}}}}),
             ContainsSubstring("'minimum'"));
  CHECK_THAT(respond({{"type", "xml"}}), ContainsSubstring("json_object"));
  CHECK_THAT(respond({{"type", "json_schema"}}), ContainsSubstring("json_schema"));
  CHECK_THAT(respond("json"), ContainsSubstring("response_format"));
  CHECK(api.script->made == 0);
}
