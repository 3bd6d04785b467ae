// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"

#include <string>

#include "api_fixture.hpp"

using namespace troika::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Matches;

namespace {

const Json hi = Json::array({{{"role", "user"}, {"content", "Hi"}}});
const Json tools =
    Json::array({{{"type", "function"}, {"function", {{"name", "time"}, {"parameters", {{"type", "object"}}}}}}});
const std::string call = "<tool_call>\n{\"name\": \"time\", \"arguments\": {\"zone\": \"UTC\"}}\n</tool_call>";

// Ids behind those of the tokenizer, which are special.
constexpr std::int32_t tag = 262;

// Of the words by which templates with tools and thoughts are known.
struct ToolFixture : ApiFixture {
  explicit ToolFixture(bool thinks)
      : ToolFixture(
            "{{ '<|im_start|>' }}{{ '<|im_end|>' }}# Tools\n\nYou may call one or more functions to assist with the "
            "user "
            "query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools> "
            "<tool_response>" +
            std::string(thinks ? "</think> enable_thinking" : "")) {}
  // With a special token behind those of the tokenizer, of this spelling.
  explicit ToolFixture(const std::string& chat_template, const std::string& special = "") : ApiFixture({}, 2000) {
    folder.write("chat/tokenizer_config.json", Json{{"chat_template", chat_template}, {"eos_token", "</s>"}}.dump());
    if (special.empty()) return;
    auto tokenizer = Json::parse(byte_level());
    tokenizer["added_tokens"].push_back({{"id", tag}, {"content", special}, {"special", true}, {"normalized", false}});
    folder.write("chat/tokenizer.json", tokenizer.dump());
  }
};

const std::string llama =
    "{{ '<|start_header_id|>' }}<|end_header_id|><|eot_id|>Cutting Knowledge Date: December 2023 26 Jul 2024 "
    "Environment: ipython {{ 'Do not use variables.\n\n' }}";
const std::string mistral =
    "== user_messages[-1] if key != 'return' out[:-1] '[AVAILABLE_TOOLS] [' '[INST] ' + message['content'] + '[/INST]' "
    "'[TOOL_CALLS] [' message['content'] + eos_token '[TOOL_RESULTS] {'content': '";

std::string prompt(ApiFixture& api) {
  std::string text;
  for (const auto id : api.asked().prompt) {
    if (id < 256) text += static_cast<char>(id);
    if (id >= 256 && id < 260)
      text += std::vector<std::string>{"he", "ll", "hell", " he"}[static_cast<std::size_t>(id - 256)];
  }
  return text;
}

}  // namespace

TEST_CASE("calls of tools are taken out of the answer, whole and in a stream, for both kinds of clients") {
  ToolFixture api(false);
  api.script->set("Let me see.\n" + call);
  const Json body = {{"model", "chat"}, {"messages", hi}, {"tools", tools}};
  Json whole = body;
  whole["stream"] = false;
  const auto message = api.json("/api/chat", whole)["message"];
  CHECK(message["content"] == "Let me see.");
  CHECK(message["tool_calls"] == Json::parse(R"([{"function":{"index":0,"name":"time","arguments":{"zone":"UTC"}}}])"));
  CHECK_THAT(prompt(api), ContainsSubstring("<tools>\n{\"function\": {\"name\": \"time\", \"parameters\": {\"type\": "
                                            "\"object\"}}, \"type\": \"function\"}\n</tools>"));
  std::string text;
  Json calls;
  for (const auto& part : lines(api.post("/api/chat", body).body)) {
    text += part["message"]["content"].get<std::string>();
    if (part["message"].contains("tool_calls")) calls.push_back(part["message"]["tool_calls"]);
  }
  CHECK(text == "Let me see.");
  CHECK(calls == Json::array({message["tool_calls"]}));

  const auto choice = api.json("/v1/chat/completions", body)["choices"][0];
  CHECK(choice["finish_reason"] == "tool_calls");
  CHECK(choice["message"]["tool_calls"][0]["function"] == Json{{"name", "time"}, {"arguments", "{\"zone\":\"UTC\"}"}});
  CHECK_THAT(choice["message"]["tool_calls"][0]["id"].get<std::string>(), Matches("call_.+"));
  Json stream = body;
  stream["stream"] = true;
  const auto parts = events(api.post("/v1/chat/completions", stream).body);
  CHECK(parts.back()["choices"][0]["finish_reason"] == "tool_calls");
  int found = 0;
  for (const auto& part : parts) {
    const auto& delta = part["choices"][0]["delta"];
    if (!delta.contains("tool_calls")) continue;
    ++found;
    CHECK(delta["tool_calls"][0]["index"] == 0);
    CHECK(delta["tool_calls"][0]["function"]["arguments"] == "{\"zone\":\"UTC\"}");
  }
  CHECK(found == 1);

  // Half of a call is text; and so is a whole one where no tools were given
  api.script->set(call.substr(0, 30));
  CHECK(api.json("/api/chat", whole)["message"]["content"] == call.substr(0, 30));
  api.script->set(call);
  Json none = body;
  none["tool_choice"] = "none";
  CHECK(api.json("/v1/chat/completions", none)["choices"][0]["message"]["content"] == call);
}

// A mark before calls is a special token, which is no text otherwise
TEST_CASE("calls in the ways of Llama and Mistral come out as those of others, and back into the prompt") {
  const bool is_llama = GENERATE(true, false);
  ToolFixture api(is_llama ? llama : mistral, is_llama ? "<|python_tag|>" : "[TOOL_CALLS]");
  const std::string text = is_llama ? R"({"name": "time", "parameters": {"zone": "UTC"}})"
                                    : R"( [{"name": "time", "arguments": {"zone": "UTC"}}])";
  api.script->set(text);
  api.script->tokens.insert(api.script->tokens.begin(), tag);
  Json body = {{"model", "chat"}, {"messages", hi}, {"tools", tools}, {"stream", false}};
  const Json found = Json::parse(R"([{"function":{"index":0,"name":"time","arguments":{"zone":"UTC"}}}])");
  auto message = api.json("/api/chat", body)["message"];
  CHECK(message["content"] == "");
  CHECK(message["tool_calls"] == found);
  CHECK_THAT(
      prompt(api),
      ContainsSubstring(is_llama ? "Do not use variables.\n\n{\n    \"function\": {\n        \"name\": \"time\""
                                 : "[AVAILABLE_TOOLS] [{\"type\": \"function\", \"function\": {\"name\": \"time\""));
  const auto choice = api.json("/v1/chat/completions", body)["choices"][0];
  CHECK(choice["finish_reason"] == "tool_calls");
  CHECK(choice["message"]["tool_calls"][0]["function"] == Json{{"name", "time"}, {"arguments", "{\"zone\":\"UTC\"}"}});

  // Of a stream no part has text
  body["stream"] = true;
  int calls = 0;
  for (const auto& part : lines(api.post("/api/chat", body).body)) {
    CHECK(part["message"]["content"] == "");
    calls += part["message"].contains("tool_calls") ? 1 : 0;
  }
  CHECK(calls == 1);
  for (const auto& part : events(api.post("/v1/chat/completions", body).body)) {
    const auto& delta = part["choices"][0]["delta"];
    CHECK(delta.value("content", "") == "");
    calls += delta.contains("tool_calls") ? 1 : 0;
  }
  CHECK(calls == 2);

  // With what the tool said, by the id that it got
  body["stream"] = false;
  body["messages"].push_back(choice["message"]);
  body["messages"].push_back(
      {{"role", "tool"}, {"tool_call_id", choice["message"]["tool_calls"][0]["id"]}, {"content", "12:00"}});
  api.script->set("Noon.");
  CHECK(api.json("/v1/chat/completions", body)["choices"][0]["message"]["content"] == "Noon.");
  CHECK_THAT(prompt(api),
             ContainsSubstring(
                 is_llama ? "{\"name\": \"time\", \"parameters\": {\"zone\": "
                            "\"UTC\"}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n\"12:00\"<|eot_id|>"
                          : " [{\"name\": \"time\", \"arguments\": {\"zone\": \"UTC\"}, \"id\": \"000000001\"}]"));

  // What is no call is what the model wrote
  api.script->set(text.substr(0, text.size() - 1));
  CHECK(api.json("/v1/chat/completions", body)["choices"][0]["message"]["content"] == text.substr(0, text.size() - 1));
}

TEST_CASE("a client is told whether a model takes tools and thinks") {
  ToolFixture thinks(true), tools_only(false);
  CHECK(thinks.json("/api/show", {{"model", "chat"}})["capabilities"] ==
        Json::array({"completion", "tools", "thinking"}));
  CHECK(tools_only.json("/api/show", {{"model", "chat"}})["capabilities"] == Json::array({"completion", "tools"}));
  CHECK(tools_only.json("/api/show", {{"model", "small"}})["capabilities"] == Json::array({"completion"}));
}

TEST_CASE("calls and what tools said go back into the conversation") {
  ToolFixture api(false);
  const std::string wanted =
      "<|im_start|>assistant\n<tool_call>\n{\"name\": \"time\", \"arguments\": {\"b\": 1, \"a\": [2, "
      "3]}}\n</tool_call><|im_end|>\n"
      "<|im_start|>user\n<tool_response>\n12:00\n</tool_response><|im_end|>\n<|im_start|>assistant\n";
  const auto asked = [&](const std::string& target, const std::string& arguments) {
    const auto answer = api.ask("POST", target,
                                R"({"model":"chat","stream":false,"messages":[{"role":"user","content":"Hi"},
      {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"time","arguments":)" +
                                    arguments + R"(}}]},{"role":"tool","tool_call_id":"1","content":"12:00"}]})");
    INFO(answer.body);
    CHECK(answer.status == 200);
    return prompt(api);
  };
  CHECK_THAT(asked("/api/chat", R"({"b":1,"a":[2,3]})"), Catch::Matchers::EndsWith(wanted));
  CHECK_THAT(asked("/v1/chat/completions", R"("{\"b\":1,\"a\":[2,3]}")"), Catch::Matchers::EndsWith(wanted));
}

TEST_CASE("thoughts are apart from the answer, where the model has any and they are not turned off") {
  ToolFixture api(true);
  api.script->set("<think>\nhm\n</think>\n\nYes");
  Json body = {{"model", "chat"}, {"messages", hi}, {"stream", false}};
  auto message = api.json("/api/chat", body)["message"];
  CHECK(message["content"] == "Yes");
  CHECK(message["thinking"] == "hm");
  CHECK(api.json("/api/generate", {{"model", "chat"}, {"prompt", "Hi"}, {"stream", false}})["thinking"] == "hm");
  const auto choice = api.json("/v1/chat/completions", body)["choices"][0]["message"];
  CHECK(choice["reasoning_content"] == "hm");
  CHECK(choice["content"] == "Yes");
  api.script->set("Yes");
  body["think"] = false;
  CHECK(api.json("/api/chat", body)["message"] == Json{{"role", "assistant"}, {"content", "Yes"}});
  CHECK_THAT(prompt(api), Catch::Matchers::EndsWith("<think>\n\n</think>\n\n"));
  body["think"] = true;
  CHECK(api.post("/api/chat", body).status == 200);
  CHECK_THAT(prompt(api), Catch::Matchers::EndsWith("assistant\n"));
  body["format"] = "json";
  CHECK_THAT(api.post("/api/chat", body).body, ContainsSubstring("without thinking"));
}

TEST_CASE("what a model has no place for is refused by its name") {
  ApiFixture api;
  Json body = {{"model", "chat"}, {"messages", hi}, {"tools", tools}, {"stream", false}};
  const auto refused = [&](const std::string& target, const std::string& why) {
    const auto answer = api.post(target, body);
    CHECK(answer.status == 400);
    CHECK_THAT(answer.body, ContainsSubstring(why));
  };
  refused("/api/chat", "does not support tools");
  refused("/v1/chat/completions", "does not support tools");
  body["tool_choice"] = "required";
  refused("/v1/chat/completions", "tool_choice");
  body.erase("tool_choice");
  body["tools"] = {{{"type", "function"}}};
  refused("/api/chat", "function");
  body.erase("tools");
  body["think"] = true;
  refused("/api/chat", "does not support thinking");
  body.erase("think");
  body["messages"] = {{{"role", "user"}, {"content", "Hi"}, {"images", {"eA=="}}}};
  refused("/api/chat", "images");
}
