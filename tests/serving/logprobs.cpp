// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"

#include <string>

#include "api_fixture.hpp"

using namespace troika::test;
using Catch::Matchers::ContainsSubstring;

namespace {

const Json hi = Json::array({{{"role", "user"}, {"content", "Hi"}}});

Json entry(const std::string& token, double logprob) {
  Json bytes = Json::array();
  for (const char byte : token) bytes.push_back(static_cast<unsigned char>(byte));
  return {{"token", token}, {"logprob", logprob}, {"bytes", bytes}};
}

// What the fake engine tells of "Yes": 0, -0.5 ... of its tokens, and 0, -1 ... of "a", "b" ...
Json told(int likeliest) {
  Json list;
  for (int i = 0; i < 3; ++i) {
    list.push_back(entry(std::string("Yes").substr(static_cast<std::size_t>(i), 1), -0.5 * (i + 1)));
    list.back()["top_logprobs"] = Json::array();
    for (int k = 0; k < likeliest; ++k)
      list.back()["top_logprobs"].push_back(entry(std::string(1, static_cast<char>('a' + k)), -k));
  }
  return list;
}

}  // namespace

TEST_CASE("Ollama's clients learn how likely each token was, in the part of the stream that has it") {
  ApiFixture api;
  api.script->set("Yes");
  Json body = {{"model", "chat"}, {"messages", hi}, {"prompt", "Hi"}, {"stream", false}};
  for (const std::string target : {"/api/chat", "/api/generate"}) {
    body["stream"] = false;
    body.erase("logprobs");
    body["top_logprobs"] = 2;
    CHECK(!api.json(target, body).contains("logprobs"));
    body["logprobs"] = true;
    CHECK(api.json(target, body)["logprobs"] == told(2));
    body.erase("top_logprobs");
    CHECK(api.json(target, body)["logprobs"] == told(0));
    body["stream"] = true;
    Json list;
    for (const auto& part : lines(api.post(target, body).body))
      for (const auto& one : part.value("logprobs", Json::array())) list.push_back(one);
    CHECK(list == told(0));
    body["top_logprobs"] = 21;
    const auto refused = api.post(target, body);
    CHECK(refused.status == 400);
    CHECK_THAT(refused.body, ContainsSubstring("top_logprobs") && ContainsSubstring("20"));
  }
}

TEST_CASE("OpenAI's clients learn how likely each token was") {
  ApiFixture api;
  api.script->set("Yes");
  Json body = {{"model", "chat"}, {"messages", hi}, {"logprobs", true}, {"top_logprobs", 3}};
  const auto choice = api.json("/v1/chat/completions", body)["choices"][0];
  CHECK(choice["logprobs"] == Json{{"content", told(3)}, {"refusal", nullptr}});
  body["stream"] = true;
  Json list;
  for (const auto& part : events(api.post("/v1/chat/completions", body).body)) {
    const auto& one = part["choices"][0];
    if (!one.contains("logprobs")) continue;
    for (const auto& token : one["logprobs"]["content"]) list.push_back(token);
  }
  CHECK(list == told(3));
  body["logprobs"] = false;
  CHECK(api.post("/v1/chat/completions", body).status == 400);
  body.erase("top_logprobs");
  CHECK_THAT(api.post("/v1/chat/completions", body).body, !ContainsSubstring("logprobs"));
  CHECK(!api.asked().logprobs);

  Json text = {{"model", "chat"}, {"prompt", "Hi"}, {"logprobs", 1}};
  const auto logprobs = api.json("/v1/completions", text)["choices"][0]["logprobs"];
  CHECK(logprobs["tokens"] == Json{"Y", "e", "s"});
  CHECK(logprobs["token_logprobs"] == Json{-0.5, -1, -1.5});
  CHECK(logprobs["text_offset"] == Json{0, 1, 2});
  CHECK(logprobs["top_logprobs"][1] == Json{{"a", 0}, {"e", -1}});
  text["stream"] = true;
  Json offsets;
  for (const auto& part : events(api.post("/v1/completions", text).body)) {
    const auto& one = part["choices"][0];
    if (one.contains("logprobs"))
      for (const auto& offset : one["logprobs"]["text_offset"]) offsets.push_back(offset);
  }
  CHECK(offsets == Json{0, 1, 2});
  text["logprobs"] = 21;
  CHECK(api.post("/v1/completions", text).status == 400);
  text["logprobs"] = false;
  CHECK(api.post("/v1/completions", text).status == 200);
  CHECK(!api.asked().logprobs);
}

TEST_CASE("tokens that show no text are told too, a special one as it is spelled") {
  ApiFixture api;
  api.script->tokens = {0xe2, 261, 'Y'};
  const Json body = {{"model", "chat"}, {"messages", hi}, {"logprobs", true}, {"stream", false}};
  const auto list = api.json("/api/chat", body)["logprobs"];
  REQUIRE(list.size() == 3);
  CHECK(list[0]["bytes"] == Json{0xe2});
  CHECK(list[0]["token"] == "\xef\xbf\xbd");
  CHECK(list[1]["token"] == "</s>");
  CHECK(list[2]["token"] == "Y");
}
