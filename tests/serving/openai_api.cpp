// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"

#include <string>

#include "api_fixture.hpp"

using namespace troika::test;
using Catch::Matchers::ContainsSubstring;

namespace {
const Json hi = Json::array({{{"role", "user"}, {"content", "Hi"}}});
}

TEST_CASE("a chat completion is one object unless a stream is asked for") {
  ApiFixture api;
  const auto answer = api.json("/v1/chat/completions", {{"model", "chat"}, {"messages", hi}});
  CHECK(answer["object"] == "chat.completion");
  CHECK(answer["id"].get<std::string>().starts_with("chatcmpl-"));
  CHECK(answer["created"].is_number_integer());
  CHECK(answer["choices"].size() == 1);
  CHECK(answer["choices"][0]["message"] == Json{{"role", "assistant"}, {"content", "Hello, world"}});
  CHECK(answer["choices"][0]["finish_reason"] == "stop");
  CHECK(answer["usage"]["completion_tokens"] == 12);
  CHECK(answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"].get<int>() + 12);
  const auto sampling = api.asked().sampling;
  CHECK(sampling.temperature == 1);
  CHECK(sampling.top_p == 1);
  CHECK(sampling.top_k == 0);
}

TEST_CASE("a stream of chat completions tells the role first, and what was used last") {
  ApiFixture api;
  const Json request = {
      {"model", "chat"}, {"messages", hi}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  const auto parts = events(api.post("/v1/chat/completions", request).body);
  REQUIRE(parts.size() >= 3);
  CHECK(parts[0]["choices"][0]["delta"]["role"] == "assistant");
  std::string text;
  for (const auto& part : parts) {
    CHECK(part["object"] == "chat.completion.chunk");
    CHECK(part["id"] == parts[0]["id"]);
    if (!part["choices"].empty()) text += part["choices"][0]["delta"].value("content", "");
  }
  CHECK(text == "Hello, world");
  CHECK(parts[parts.size() - 2]["choices"][0]["finish_reason"] == "stop");
  CHECK(parts.back()["choices"].empty());
  CHECK(parts.back()["usage"]["completion_tokens"] == 12);
  api.script->tokens.clear();
  const auto none =
      events(api.post("/v1/chat/completions", {{"model", "chat"}, {"messages", hi}, {"stream", true}}).body);
  CHECK(none[0]["choices"][0]["delta"]["role"] == "assistant");
  CHECK_FALSE(none.back().contains("usage"));
}

TEST_CASE("options of OpenAI reach the engine") {
  ApiFixture api;
  const auto answer =
      api.json("/v1/chat/completions",
               {{"model", "chat"},
                {"max_tokens", 100},
                {"max_completion_tokens", 4},
                {"temperature", 0},
                {"top_p", 0},
                {"seed", -7},
                {"presence_penalty", 1},
                {"frequency_penalty", -1},
                {"messages",
                 {{{"role", "developer"},
                   {"content", {{{"type", "text"}, {"text", "Be"}}, {{"type", "text"}, {"text", " kind"}}}}},
                  hi[0]}}});
  CHECK(answer["choices"][0]["finish_reason"] == "length");
  CHECK(answer["choices"][0]["message"]["content"] == "Hell");
  const auto asked = api.asked();
  CHECK(asked.max_tokens == 4);
  CHECK(asked.sampling.temperature == 0);
  CHECK(asked.sampling.top_p > 0);
  CHECK(asked.sampling.presence_penalty == 1);
  CHECK(asked.sampling.frequency_penalty == -1);
  CHECK(asked.sampling.seed == static_cast<std::uint64_t>(-7));
  CHECK(api.json("/v1/chat/completions",
                 {{"model", "chat"}, {"messages", hi}, {"stop", ", w"}})["choices"][0]["message"]["content"] ==
        "Hello");
  CHECK(api.json("/v1/chat/completions",
                 {{"model", "chat"}, {"messages", hi}, {"stop", {"x", "l"}}})["choices"][0]["message"]["content"] ==
        "He");
}

TEST_CASE("completions continue a prompt") {
  ApiFixture api;
  const auto answer = api.json("/v1/completions", {{"model", "small"}, {"prompt", "Say"}});
  CHECK(answer["object"] == "text_completion");
  CHECK(answer["choices"][0]["text"] == "Hello, world");
  std::string text;
  for (const auto& part :
       events(api.post("/v1/completions", {{"model", "small"}, {"prompt", {"Say"}}, {"stream", true}}).body))
    text += part["choices"][0]["text"].get<std::string>();
  CHECK(text == "Hello, world");
}

TEST_CASE("models that fill gaps get prompt and suffix, and others say that they do not insert") {
  ApiFixture api;
  auto tokenizer = Json::parse(byte_level());
  int id = 262;
  for (const std::string name : {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"})
    tokenizer["added_tokens"].push_back({{"id", id++}, {"content", name}, {"special", true}, {"normalized", false}});
  api.folder.write("chat/tokenizer.json", tokenizer.dump());
  Json body = {{"model", "chat"}, {"prompt", "a"}, {"suffix", "b"}, {"system", "x"}, {"stream", false}};
  CHECK(api.json("/api/generate", body)["response"] == "Hello, world");
  CHECK(api.asked().prompt == std::vector<std::int32_t>{260, 262, 'a', 263, 'b', 264});
  CHECK(api.asked().ends.back() == 265);
  CHECK(api.json("/v1/completions", body)["choices"][0]["text"] == "Hello, world");
  CHECK(api.asked().prompt == std::vector<std::int32_t>{260, 262, 'a', 263, 'b', 264});
  body["prompt"] = "";
  CHECK(api.json("/v1/completions", body)["choices"][0]["text"] == "Hello, world");
  CHECK(api.json("/api/generate", body)["response"] == "Hello, world");
  CHECK(api.asked().prompt == std::vector<std::int32_t>{260, 262, 263, 'b', 264});

  const auto refused = [&](const std::string& why) {
    for (const std::string target : {"/api/generate", "/v1/completions"}) {
      const auto answer = api.post(target, body);
      CHECK(answer.status == 400);
      CHECK_THAT(answer.body, ContainsSubstring(why));
    }
  };
  body["prompt"] = std::string(190, 'a') + std::string(10, 'b');
  refused("do not fit");
  body["prompt"] = std::string(100000, 'a');
  refused("do not fit");
  body["model"] = "small";
  body["prompt"] = "a";
  refused("does not support insert");
  body["prompt"] = {1, 2};
  CHECK(api.post("/v1/completions", body).status == 400);
  body["suffix"] = "";
  CHECK(api.post("/v1/completions", body).status == 200);
}

TEST_CASE("completions take tokens as they are, and go on behind the end of a text where that is asked for") {
  ApiFixture api;
  api.script->end.devices = "some";
  for (const Json& prompt : {Json{7, 8, 9}, Json{{7, 8, 9}}}) {
    const auto parts = events(api.post("/v1/completions", {{"model", "chat"},
                                                           {"prompt", prompt},
                                                           {"ignore_eos", true},
                                                           {"stream", true},
                                                           {"stream_options", {{"include_usage", true}}}})
                                  .body);
    CHECK(api.asked().prompt == std::vector<std::int32_t>{7, 8, 9});
    CHECK(api.asked().ends.empty());
    CHECK(parts.back()["usage"]["prompt_tokens"] == 3);
    CHECK(parts.back()["devices"] == "some");
  }
  api.json("/v1/completions", {{"model", "chat"}, {"prompt", {7}}});
  CHECK_FALSE(api.asked().ends.empty());
}

TEST_CASE("errors of /v1 have OpenAI's form") {
  ApiFixture api;
  const auto error = [&](const std::string& path, const Json& body, int status) {
    const auto answer = api.post(path, body);
    CAPTURE(body.dump());
    CHECK(answer.status == status);
    const auto json = Json::parse(answer.body)["error"];
    CHECK(json["message"].is_string());
    CHECK(json.contains("param"));
    CHECK(json.contains("code"));
    return json["type"].get<std::string>();
  };
  const std::string chat = "/v1/chat/completions";
  CHECK(error(chat, {{"model", "none"}, {"messages", hi}}, 404) == "not_found_error");
  CHECK(error(chat, Json::array(), 400) == "invalid_request_error");
  CHECK(error(chat, {{"model", "chat"}}, 400) == "invalid_request_error");
  CHECK(error(chat, {{"model", "chat"}, {"messages", Json::array()}}, 400) == "invalid_request_error");
  CHECK(error(chat, {{"model", "chat"}, {"messages", hi}, {"max_tokens", 0}}, 400) == "invalid_request_error");
  CHECK(error(chat, {{"model", "chat"}, {"messages", hi}, {"top_p", 2}}, 400) == "invalid_request_error");
  CHECK(error(chat, {{"model", "chat"}, {"messages", hi}, {"n", 2}}, 501) == "api_error");
  CHECK(error(chat, {{"model", "chat"}, {"messages", hi}, {"tools", {{{"type", "function"}}}}}, 400) ==
        "invalid_request_error");
  CHECK(error(chat, {{"model", "chat"}, {"messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}}},
              400) == "invalid_request_error");
  for (const Json& prompt :
       {Json{1, 100000}, Json{-1}, Json{1.5}, Json{1, "a"}, Json{"a", "b"}, Json{{1}, {2}}, Json::array(), Json("")})
    CHECK(error("/v1/completions", {{"model", "chat"}, {"prompt", prompt}}, 400) == "invalid_request_error");
  api.script->full = true;
  CHECK(error(chat, {{"model", "chat"}, {"messages", hi}}, 503) == "api_error");
}
