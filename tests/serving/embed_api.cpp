// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "api_fixture.hpp"

using namespace troika::test;
using Catch::Matchers::ContainsSubstring;
using Vector = std::vector<float>;

namespace {

// With the encoder "bert" beside the decoders. The vector of n tokens that end in e is (n, e, 2).
struct EmbedFixture : ApiFixture {
  explicit EmbedFixture(troika::serving::ModelHost::Options options = {}) : ApiFixture(std::move(options), 8) {
    std::filesystem::create_directory(folder.path() / "bert");
    TinyModel::make("bert").write(folder.path() / "bert");
    folder.write("bert/tokenizer.json", word_piece());
    script->embed = [](const troika::serving::GenerationRequest& request) {
      return Vector{static_cast<float>(request.prompt.size()), static_cast<float>(request.prompt.back()), 2};
    };
  }
  std::int32_t separator() { return troika::models::Tokenizer::load(folder.path() / "bert").encode("hello").back(); }
};

Vector unit(Vector vector) {
  double square = 0;
  for (const auto value : vector) square += double{value} * double{value};
  for (auto& value : vector) value = static_cast<float>(value / std::sqrt(square));
  return vector;
}

bool near(const Vector& a, const Vector& b) {
  bool same = a.size() == b.size();
  for (std::size_t i = 0; same && i < a.size(); ++i) same = std::abs(a[i] - b[i]) < 1e-6f;
  return same;
}

// As RFC 4648 says, digit by digit.
Vector from_base64(const std::string& text) {
  std::string bytes;
  std::uint32_t bits = 0, count = 0;
  for (const char c : text) {
    if (c == '=') break;
    const auto digit = std::string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/").find(c);
    bits = bits << 6 | static_cast<std::uint32_t>(digit), count += 6;
    if (count >= 8) bytes += static_cast<char>(bits >> (count -= 8) & 255);
  }
  Vector vector(bytes.size() / 4);
  std::memcpy(vector.data(), bytes.data(), vector.size() * 4);
  return vector;
}

}  // namespace

TEST_CASE("embed gives a vector of length 1 for each text, in their order") {
  EmbedFixture api;
  const auto sep = static_cast<float>(api.separator());
  const auto one = api.json("/api/embed", {{"model", "bert"}, {"input", "hello"}});
  CHECK(one["model"] == "bert");
  REQUIRE(one["embeddings"].size() == 1);
  CHECK(near(one["embeddings"][0].get<Vector>(), unit({3, sep, 2})));
  CHECK(one["prompt_eval_count"] == 3);
  CHECK(one["total_duration"] > 0);
  CHECK(one["load_duration"] >= 0);
  const auto many = api.json("/api/embed", {{"model", "bert:latest"}, {"input", {"hello", "", "hello hello"}}});
  REQUIRE(many["embeddings"].size() == 3);
  CHECK(near(many["embeddings"][0].get<Vector>(), unit({3, sep, 2})));
  CHECK(near(many["embeddings"][1].get<Vector>(), unit({2, sep, 2})));
  CHECK(near(many["embeddings"][2].get<Vector>(), unit({4, sep, 2})));
  CHECK(many["prompt_eval_count"] == 9);
  const auto two = api.json("/api/embed", {{"model", "bert"}, {"input", "hello"}, {"dimensions", 2}});
  CHECK(near(two["embeddings"][0].get<Vector>(), unit({3, sep})));
  std::vector<std::string> texts(300, "hello");
  CHECK(api.json("/api/embed", {{"model", "bert"}, {"input", texts}})["embeddings"].size() == 300);
}

TEST_CASE("the older endpoint gives one vector as it was pooled") {
  EmbedFixture api;
  const auto answer = api.json("/api/embeddings", {{"model", "bert"}, {"prompt", "hello"}});
  CHECK(answer["embedding"].get<Vector>() == Vector{3, static_cast<float>(api.separator()), 2});
  CHECK(api.json("/api/embeddings", {{"model", "bert"}, {"prompt", ""}})["embedding"] == Json::array());
}

TEST_CASE("embeddings of /v1 take texts and tokens, and give numbers or base64") {
  EmbedFixture api;
  const auto sep = static_cast<float>(api.separator());
  const auto answer = api.json("/v1/embeddings", {{"model", "bert"}, {"input", {"hello", "hello hello"}}});
  CHECK(answer["object"] == "list");
  CHECK(answer["model"] == "bert");
  CHECK(answer["usage"] == Json{{"prompt_tokens", 7}, {"total_tokens", 7}});
  REQUIRE(answer["data"].size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(answer["data"][i]["object"] == "embedding");
    CHECK(answer["data"][i]["index"] == i);
    CHECK(near(answer["data"][i]["embedding"].get<Vector>(), unit({static_cast<float>(3 + i), sep, 2})));
  }
  for (const std::size_t dimensions : {1u, 2u, 3u}) {
    const Json request{{"model", "bert"}, {"input", "hello"}, {"dimensions", dimensions}};
    auto coded = request;
    coded["encoding_format"] = "base64";
    const auto text = api.json("/v1/embeddings", coded)["data"][0]["embedding"].get<std::string>();
    CHECK(text.size() % 4 == 0);
    CHECK(near(from_base64(text), api.json("/v1/embeddings", request)["data"][0]["embedding"].get<Vector>()));
  }
  CHECK(
      near(api.json("/v1/embeddings", {{"model", "bert"}, {"input", {5, 6, 7}}})["data"][0]["embedding"].get<Vector>(),
           unit({3, 7, 2})));
  CHECK(api.asked().prompt == std::vector<std::int32_t>{5, 6, 7});
  CHECK(api.json("/v1/embeddings", {{"model", "bert"}, {"input", {{5}, {6, 7}}}})["data"].size() == 2);
  const auto wrong = api.post("/v1/embeddings", {{"model", "bert"}, {"input", "hello"}, {"encoding_format", "hex"}});
  CHECK(wrong.status == 400);
  CHECK(Json::parse(wrong.body)["error"]["type"] == "invalid_request_error");
  for (const Json& input : {Json(nullptr), Json(""), Json::array(), Json(7), Json::object(), Json{1, "x"}, Json{"x", 1},
                            Json{{1}, "x"}, Json{-1}}) {
    INFO(input.dump());
    CHECK(api.post("/v1/embeddings", {{"model", "bert"}, {"input", input}}).status == 400);
  }
}

TEST_CASE("a text that is too long is cut, or refused where that is wished") {
  EmbedFixture api;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "hello ";
  CHECK(api.json("/api/embed",
                 {{"model", "bert"}, {"input", text}, {"options", {{"num_ctx", 5}}}})["prompt_eval_count"] == 5);
  CHECK(api.asked().prompt.back() == api.separator());
  for (const auto& input : {text, std::string("hello hello hello hello hello hello")}) {
    const auto refused = api.post(
        "/api/embed", {{"model", "bert"}, {"input", input}, {"truncate", false}, {"options", {{"num_ctx", 5}}}});
    CHECK(refused.status == 400);
    CHECK_THAT(refused.body, ContainsSubstring("exceeds the context length"));
  }
}

TEST_CASE("what embeds does not write, and what writes does not embed") {
  EmbedFixture api;
  CHECK(api.json("/api/show", {{"model", "bert"}})["capabilities"] == Json::array({"embedding"}));
  for (const auto* path : {"/api/embed", "/api/embeddings", "/v1/embeddings"}) {
    const auto refused = api.post(path, {{"model", "small"}, {"input", "x"}, {"prompt", "x"}});
    CHECK(refused.status == 400);
    CHECK_THAT(refused.body, ContainsSubstring("does not support embeddings") && ContainsSubstring("bert:latest"));
  }
  const Json messages{{{"role", "user"}, {"content", "x"}}};
  for (const auto* path : {"/api/generate", "/api/chat", "/v1/completions", "/v1/chat/completions"}) {
    const auto refused = api.post(path, {{"model", "bert"}, {"prompt", "x"}, {"messages", messages}});
    CHECK(refused.status == 400);
    CHECK_THAT(refused.body, ContainsSubstring("does not support"));
  }
  CHECK(api.post("/api/embed", {{"model", "none"}, {"input", "x"}}).status == 404);
  CHECK(api.post("/api/embed", {{"input", "x"}}).status == 400);
  for (const Json& input :
       {Json(7), Json::object(), Json{"x", 7}, Json{nullptr}, Json(std::vector<std::string>(4097))}) {
    const auto refused = api.post("/api/embed", {{"model", "bert"}, {"input", input}});
    CHECK(refused.status == 400);
  }
}

TEST_CASE("an encoder is loaded, shown and unloaded like other models") {
  EmbedFixture api;
  CHECK(api.json("/api/embed", {{"model", "bert"}})["embeddings"] == Json::array());
  const auto loaded = [&] {
    std::vector<std::string> names;
    const auto answer = api.get("/api/ps");
    for (const auto& model : answer["models"]) names.push_back(model["name"]);
    return names;
  };
  CHECK(loaded() == std::vector<std::string>{"bert:latest"});
  CHECK(api.json("/api/generate", {{"model", "bert"}, {"keep_alive", 0}})["done_reason"] == "unload");
  for (int i = 0; i < 2000 && !loaded().empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK(loaded().empty());
}

TEST_CASE("when the client leaves, or the engine gives up, all texts of a request end") {
  EmbedFixture api;
  api.script->allow(0);
  const auto reply =
      api.send("POST", "/api/embed", Json{{"model", "bert"}, {"input", std::vector<std::string>(100, "hello")}}.dump());
  const auto asked = [&] {
    std::lock_guard lock(api.script->mutex);
    return api.script->asked.size();
  };
  for (int i = 0; i < 2000 && asked() < 64; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK(asked() == 64);  // no more at once
  reply->leave();
  (void)reply->finished();
  CHECK(api.script->cancelled == 64);
  CHECK(asked() == 64);

  api.script->allow(1 << 20);
  api.script->end = {.finish = troika::serving::Finish::failed, .error = "unplugged"};
  const auto failed = api.post("/api/embed", {{"model", "bert"}, {"input", {"hello", "hello"}}});
  CHECK(failed.status == 503);
  CHECK_THAT(failed.body, ContainsSubstring("unplugged"));
  api.script->full = true;
  CHECK(api.post("/api/embed", {{"model", "bert"}, {"input", "hello"}}).status == 503);
}
