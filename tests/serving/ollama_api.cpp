// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "api_fixture.hpp"
#include "socket_client.hpp"

using namespace troika::test;
using Catch::Matchers::ContainsSubstring;
using troika::serving::Finish;
namespace serving = troika::serving;

namespace {

std::string response(const std::vector<Json>& parts) {
  std::string text;
  for (const auto& part : parts)
    text +=
        part.contains("message") ? part["message"]["content"].get<std::string>() : part["response"].get<std::string>();
  return text;
}

}  // namespace

TEST_CASE("a client finds out that the server is there, and its models") {
  ApiFixture api;
  CHECK(api.ask("GET", "/").body == "Ollama is running");
  CHECK(api.ask("HEAD", "/").status == 200);
  CHECK_THAT(api.get("/api/version")["version"].get<std::string>(),
             Catch::Matchers::Matches("[0-9]+\\.[0-9]+\\.[0-9]+"));
  const auto models = api.get("/api/tags")["models"];
  REQUIRE(models.size() == 2);
  for (const auto& model : models) {
    const auto name = model["name"].get<std::string>();
    CHECK((name == "small:latest" || name == "chat:latest"));
    CHECK(model["model"] == name);
    CHECK_THAT(model["digest"].get<std::string>(), Catch::Matchers::Matches("[0-9a-f]{64}"));
    CHECK_THAT(model["modified_at"].get<std::string>(),
               Catch::Matchers::Matches("20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9}Z"));
    CHECK(model["details"]["family"] == "llama");
    CHECK(model["details"]["families"] == Json::array({"llama"}));
    CHECK(model["details"]["format"] == "safetensors");
    CHECK(model["details"]["quantization_level"] == "F32");
    CHECK(model["size"] > 10000);
  }
  CHECK(api.get("/v1/models")["data"].size() == 2);
  CHECK(api.get("/v1/models/Small")["id"] == "small:latest");
  CHECK(api.get("/v1/models/chat%3Alatest")["object"] == "model");
  CHECK(api.ask("GET", "/v1/models/none").status == 404);
  const auto shown = api.json("/api/show", {{"model", "SMALL"}});
  CHECK(shown["model_info"]["llama.block_count"] == 2);
  CHECK(shown["capabilities"] == Json::array({"completion"}));
  CHECK_THAT(api.json("/api/show", {{"name", "chat"}})["template"].get<std::string>(), ContainsSubstring("im_start"));
  CHECK(api.post("/api/show", {{"model", "none"}}).status == 404);
  CHECK(api.post("/api/show", Json::object()).status == 400);
}

TEST_CASE("generate streams lines by default, and counts in the last one alone") {
  ApiFixture api;
  const auto answer = api.post("/api/generate", {{"model", "small"}, {"prompt", "Say"}});
  CHECK(answer.status == 200);
  CHECK(std::ranges::count(answer.headers,
                           std::pair<std::string, std::string>("Content-Type", "application/x-ndjson")) == 1);
  const auto parts = lines(answer.body);
  CHECK(response(parts) == "Hello, world");
  for (const auto& part : parts) {
    const bool last = &part == &parts.back();
    CHECK(part["done"] == last);
    CHECK(part["model"] == "small");
    for (const auto* key : {"done_reason", "total_duration", "load_duration", "prompt_eval_count",
                            "prompt_eval_duration", "eval_count", "eval_duration", "context"}) {
      CHECK(part.contains(key) == last);
    }
  }
  CHECK(parts.back()["done_reason"] == "stop");
  CHECK(parts.back()["prompt_eval_count"] == 5);  // with <s> and </s>
  CHECK(parts.back()["eval_count"] == 12);
  CHECK(parts.back()["context"].size() == 17);
  CHECK(parts.back()["total_duration"] > 0);

  const auto whole = api.json("/api/generate", {{"model", "small"}, {"prompt", "Say"}, {"stream", false}});
  CHECK(whole["response"] == "Hello, world");
  CHECK(whole["done"] == true);

  // Its context goes before the next prompt
  (void)api.json("/api/generate",
                 {{"model", "small"}, {"prompt", "!"}, {"stream", false}, {"context", whole["context"]}});
  CHECK(api.asked().prompt.size() == 18);
}

TEST_CASE("chat writes the messages down as the model wants them") {
  ApiFixture api;
  const Json messages = {{{"role", "system"}, {"content", "Be kind."}}, {{"role", "user"}, {"content", "Hi"}}};
  const auto parts = lines(api.post("/api/chat", {{"model", "chat"}, {"messages", messages}}).body);
  CHECK(response(parts) == "Hello, world");
  CHECK(parts.back()["message"]["role"] == "assistant");
  CHECK_FALSE(parts.back().contains("context"));
  const std::string wanted =
      "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
  CHECK(api.asked().prompt.size() <= wanted.size());
  CHECK(api.asked().client == "1.2.3.4");

  // generate uses the template too, unless it is raw
  (void)api.json("/api/generate", {{"model", "chat"}, {"system", "Be kind."}, {"prompt", "Hi"}, {"stream", false}});
  CHECK(api.asked().prompt == [&] {
    (void)api.post("/api/chat", {{"model", "chat"}, {"messages", messages}});
    return api.asked().prompt;
  }());
  (void)api.json("/api/generate", {{"model", "chat"}, {"prompt", "Hi"}, {"raw", true}, {"stream", false}});
  CHECK(api.asked().prompt.size() == 4);

  CHECK(api.post("/api/chat", {{"model", "small"}, {"messages", messages}}).status == 400);
  CHECK(api.post("/api/chat", {{"model", "chat"}, {"messages", {{{"role", "wizard"}, {"content", "Hi"}}}}}).status !=
        500);
}

TEST_CASE("options reach the engine, and defaults are Ollama's") {
  ApiFixture api;
  (void)api.json("/api/generate", {{"model", "small"}, {"prompt", "a"}, {"stream", false}});
  auto sampling = api.asked().sampling;
  CHECK(sampling.temperature == 0.8f);
  CHECK(sampling.top_k == 40);
  CHECK(sampling.top_p == 0.9f);
  CHECK(sampling.min_p == 0);
  CHECK(sampling.repeat_penalty == 1);
  CHECK(sampling.repeat_last_n == 64);
  const auto seed = sampling.seed;
  const Json options = {{"temperature", 0.5},
                        {"top_k", 7},
                        {"top_p", 0.25},
                        {"min_p", 0.125},
                        {"seed", 42},
                        {"repeat_penalty", 1.5},
                        {"repeat_last_n", -1},
                        {"presence_penalty", 0.5},
                        {"frequency_penalty", -0.5},
                        {"num_predict", 3},
                        {"mirostat", 2},
                        {"unheard_of", "yes"}};
  const auto answer =
      api.json("/api/generate", {{"model", "small"}, {"prompt", "a"}, {"stream", false}, {"options", options}});
  CHECK(answer["response"] == "Hel");
  CHECK(answer["done_reason"] == "length");
  sampling = api.asked().sampling;
  CHECK(sampling.seed != seed);
  CHECK(sampling.seed == 42);
  CHECK(sampling.temperature == 0.5f);
  CHECK(sampling.top_k == 7);
  CHECK(sampling.top_p == 0.25f);
  CHECK(sampling.min_p == 0.125f);
  CHECK(sampling.repeat_penalty == 1.5f);
  CHECK(sampling.repeat_last_n == -1);
  CHECK(sampling.presence_penalty == 0.5f);
  CHECK(sampling.frequency_penalty == -0.5f);
  for (const auto& wrong :
       {Json{{"temperature", "hot"}}, Json{{"temperature", -1}}, Json{{"seed", 1.5}}, Json{{"top_k", true}},
        Json{{"stop", "x"}}, Json{{"stop", {1}}}, Json{{"num_predict", "3"}}, Json(5)}) {
    const auto refused = api.post("/api/generate", {{"model", "small"}, {"prompt", "a"}, {"options", wrong}});
    CHECK(refused.status == 400);
    CHECK(Json::parse(refused.body)["error"].is_string());
  }
  // num_ctx bounds prompt and answer together
  CHECK(api.json("/api/generate",
                 {{"model", "small"}, {"prompt", "a"}, {"stream", false}, {"options", {{"num_ctx", 8}}}})["response"] ==
        "Hello");
}

TEST_CASE("nothing of a stop string is sent, however it is cut into tokens") {
  ApiFixture api;
  api.script->set("one <en><end> two");
  const Json request = {{"model", "small"}, {"prompt", "a"}, {"options", {{"stop", {"<end>", "never"}}}}};
  const auto parts = lines(api.post("/api/generate", request).body);
  CHECK(response(parts) == "one <en>");
  CHECK(parts.back()["done_reason"] == "stop");
  api.script->set("ends in the beginning <en");
  CHECK(response(lines(api.post("/api/generate", request).body)) == "ends in the beginning <en");
}

TEST_CASE("a character is never cut") {
  ApiFixture api;
  api.script->set("größer 天地 🐎🐎🐎");
  const auto parts =
      lines(api.post("/api/generate", {{"model", "small"}, {"prompt", "ß"}}).body);  // parses: each is valid
  CHECK(response(parts) == "größer 天地 🐎🐎🐎");
  api.script->set("cut \xF0\x9F");
  CHECK(response(lines(api.post("/api/generate", {{"model", "small"}, {"prompt", "a"}}).body)) == "cut \xEF\xBF\xBD");
}

TEST_CASE(
    "a prompt that is too long loses its beginning, a conversation its oldest messages, unless that is not wanted") {
  ApiFixture api;
  const std::string words(500, 'x');
  CHECK(api.post("/api/generate", {{"model", "small"}, {"prompt", words}}).status == 200);
  CHECK(api.asked().prompt.size() == 150);
  CHECK(api.asked().prompt[0] == 260);  // <s>
  const auto refused = api.post("/api/generate", {{"model", "small"}, {"prompt", words}, {"truncate", false}});
  CHECK(refused.status == 400);
  CHECK_THAT(refused.body, ContainsSubstring("502 tokens"));
  Json messages = {{{"role", "system"}, {"content", "S"}}};
  for (int i = 0; i < 20; ++i) messages.push_back({{"role", i % 2 ? "assistant" : "user"}, {"content", "message"}});
  messages.push_back({{"role", "user"}, {"content", "last"}});
  CHECK(api.post("/api/chat", {{"model", "chat"}, {"messages", messages}}).status == 200);
  std::string kept;
  for (const auto id : api.asked().prompt) kept += id < 256 ? std::string(1, static_cast<char>(id)) : "?";
  CHECK_THAT(kept, ContainsSubstring("system\nS<"));
  CHECK_THAT(kept, ContainsSubstring("user\nlast<"));
  CHECK(api.post("/api/chat", {{"model", "chat"}, {"messages", {{{"role", "user"}, {"content", words}}}}}).status ==
        400);
}

TEST_CASE("a model is loaded once, shown while it is there, and unloaded when its time is over") {
  ApiFixture api;
  CHECK(api.get("/api/ps")["models"].empty());
  std::vector<std::shared_ptr<RecordedReply>> replies;
  for (int i = 0; i < 20; ++i)
    replies.push_back(api.send("POST", "/api/generate", R"({"model":"small","prompt":"a","stream":false})"));
  for (const auto& reply : replies) CHECK(reply->finished().status == 200);
  CHECK(api.script->made == 1);
  const auto loaded = api.get("/api/ps")["models"];
  REQUIRE(loaded.size() == 1);
  CHECK(loaded[0]["name"] == "small:latest");
  CHECK(loaded[0]["context_length"] == 200);
  CHECK(loaded[0]["size"] == 1234);

  CHECK(api.json("/api/generate", {{"model", "chat"}, {"stream", false}})["done_reason"] == "load");
  CHECK(api.get("/api/ps")["models"].size() == 2);
  CHECK(
      api.json("/api/chat",
               {{"model", "chat"}, {"messages", Json::array()}, {"keep_alive", 0}, {"stream", false}})["done_reason"] ==
      "unload");
  CHECK(eventually([&] { return api.get("/api/ps")["models"].size() == 1; }));
  CHECK(api.post("/api/generate", {{"model", "small"}, {"prompt", "a"}, {"stream", false}, {"keep_alive", "30ms"}})
            .status == 200);
  CHECK(eventually([&] { return api.get("/api/ps")["models"].empty(); }));
  for (const auto& forever : {Json(-1), Json("-1s"), Json("24h"), Json("1h30m"), Json(3600)}) {
    CHECK(api.post("/api/generate", {{"model", "small"}, {"keep_alive", forever}}).status == 200);
  }
  for (const auto& wrong : {Json("soon"), Json("5"), Json("5 m"), Json(true), Json("m"), Json("")}) {
    CHECK(api.post("/api/generate", {{"model", "small"}, {"keep_alive", wrong}}).status == 400);
  }
}

TEST_CASE("the model that was idle longest makes room") {
  ApiFixture api({.most_models = 1});
  for (const auto* name : {"small", "chat", "small"}) {
    CHECK(api.post("/api/generate", {{"model", name}, {"prompt", "a"}}).status == 200);
    CHECK(api.get("/api/ps")["models"].size() == 1);
  }
  CHECK(api.script->made == 3);
}

TEST_CASE("a client that leaves ends its request at once") {
  ApiFixture api;
  api.script->allow(3);
  const auto reply = api.send("POST", "/api/generate", R"({"model":"small","prompt":"a"})");
  REQUIRE(reply->wait([](const auto& got, bool) { return std::ranges::count(got.body, '\n') > 0; }));
  reply->leave();
  CHECK(eventually([&] {
    std::lock_guard lock(api.script->mutex);
    return api.script->cancelled == 1;
  }));
  CHECK(api.script->asked.size() == 1);
}

TEST_CASE("what goes wrong has its status before the answer begins, and a last line after") {
  ApiFixture api;
  const Json request = {{"model", "small"}, {"prompt", "a"}};
  api.script->full = true;
  const auto full = api.post("/api/generate", request);
  CHECK(full.status == 503);
  CHECK(std::ranges::count(full.headers, std::pair<std::string, std::string>("Retry-After", "1")) == 1);
  api.script->full = false;
  api.script->end = {.finish = Finish::failed, .error = "power is out"};
  const auto broken = lines(api.post("/api/generate", request).body);
  CHECK(broken.back()["error"] == "power is out");
  CHECK_FALSE(broken.back().contains("done"));
  api.script->tokens.clear();
  CHECK(api.post("/api/generate", request).status == 503);
  api.script->end = {.finish = Finish::expired};
  CHECK(api.post("/api/generate", request).status == 503);
}

TEST_CASE("models are copied and deleted, within their folder only") {
  ApiFixture api;
  CHECK(api.post("/api/copy", {{"source", "small"}, {"destination", "twin:v2"}}).status == 200);
  const auto models = api.get("/api/tags")["models"];
  REQUIRE(models.size() == 3);
  const auto digest = [&](const std::string& name) {
    return std::ranges::find_if(models, [&](const auto& model) { return model["name"] == name; })->at("digest");
  };
  CHECK(digest("twin:v2") == digest("small:latest"));
  CHECK(api.post("/api/generate", {{"model", "twin:v2"}, {"prompt", "a"}}).status == 200);
  // Over one that is there: what was made on the way is gone, and a copy that was cut off is no model.
  CHECK(api.post("/api/copy", {{"source", "small"}, {"destination", "twin:v2"}}).status == 200);
  std::filesystem::copy(api.folder.path() / "twin:v2", api.folder.path() / ".cut.unfinished");
  CHECK(api.get("/api/tags")["models"].size() == 3);
  CHECK(api.post("/api/generate", {{"model", "twin:v2"}, {"prompt", "a"}}).status == 200);
  CHECK_FALSE(std::filesystem::exists(api.folder.path() / ".twin:v2.unfinished"));
  for (const auto* name : {"../out", "a/b", "", ".hidden", "/tmp/x", "a:b:c", "a\nb"}) {
    CHECK(api.post("/api/copy", {{"source", "small"}, {"destination", name}}).status == 400);
  }
  CHECK(api.post("/api/copy", {{"source", "none"}, {"destination", "x"}}).status == 404);
  CHECK(api.ask("DELETE", "/api/delete", R"({"model":"twin:v2"})").status == 200);
  CHECK(api.get("/api/tags")["models"].size() == 2);
  CHECK(api.ask("DELETE", "/api/delete", R"({"model":"../small"})").status == 404);
  CHECK(api.ask("DELETE", "/api/delete", R"({"model":"twin:v2"})").status == 404);
}

TEST_CASE("hostile and unbuilt requests get one clear error") {
  ApiFixture api;
  const auto status = [&](const std::string& body) {
    const auto answer = api.ask("POST", "/api/generate", body);
    CHECK(Json::parse(answer.body)["error"].is_string());
    return answer.status;
  };
  const auto nested = [](std::size_t depth) {
    return R"({"model":"small","options":)" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  for (const std::string body : {"",
                                 "  ",
                                 "null",
                                 "[]",
                                 "{",
                                 "\"text\"",
                                 "{}",
                                 R"({"model":5})",
                                 R"({"model":""})",
                                 R"({"model":"small","prompt":5})",
                                 R"({"model":"small","prompt":"\ud800"})",
                                 "{\"model\":\"small\",\"prompt\":\"\xff\"}",
                                 R"({"model":"small","model":"chat"})",
                                 R"({"model":"small","options":{"temperature":1e999}})",
                                 R"({"model":"small","prompt":"a","raw":true,"system":"b"})",
                                 R"({"model":"small","prompt":"a","context":[99999]})",
                                 R"({"model":"small","prompt":"a","context":[-1]})",
                                 R"({"model":"small","prompt":"a","template":"x"})",
                                 R"({"model":"small","prompt":"a","images":["eA=="]})",
                                 R"({"model":"small","prompt":"a","suffix":"x"})",
                                 R"({"model":"small","prompt":"a","think":true})",
                                 R"({"model":"small","stream":"yes"})"}) {
    CAPTURE(body);
    CHECK(status(body) == 400);
  }
  CHECK(status(nested(300000)) == 400);
  CHECK(status(std::string(300000, '[')) == 400);
  CHECK(status(R"({"model":"none","prompt":"a"})") == 404);
  CHECK(status(R"({"model":"../small","prompt":"a"})") == 404);
  for (const auto* path : {"/api/pull", "/api/push", "/api/create", "/api/blobs/sha256:00"})
    CHECK(api.ask("POST", path, "{}").status == 501);
  CHECK(api.ask("GET", "/api/generate").status == 405);
  CHECK(api.ask("GET", "/etc/passwd").status == 404);
  CHECK(api.ask("GET", "/%").status == 404);
}

TEST_CASE("the time to begin counts from when the model is there") {
  const auto script = std::make_shared<troika::test::Script>();
  script->set("x");
  serving::Clock::time_point loaded{};
  ApiFixture api([&](const serving::StoredModel&) {
    loaded = serving::Clock::now();
    return std::make_unique<troika::test::FakeEngine>(script, 200);
  });
  (void)api.json("/api/generate", {{"model", "small"}, {"prompt", "a"}, {"stream", false}});
  const serving::Api::Options options;
  const auto& request = script->asked.back();
  CHECK(request.deadline >= loaded + options.queue_time);
  CHECK(request.max_wait == options.max_wait);
}
