// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include <troika/models/files/convert.hpp>
#include <troika/serving/model_store.hpp>

#include "api_fixture.hpp"

using namespace troika::test;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr const char* ours = "application/vnd.ollama.image.";
constexpr const char* library = "manifests/registry.ollama.ai/library/";
constexpr const char* go_chatml =
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}<|im_start|>user\n{{ .Prompt "
    "}}<|im_end|>\n<|im_start|>assistant\n";

std::string bundled_gguf() {
  static const std::string bytes = [] {
    const TempFolder folder;
    troika::models::convert_to_gguf(TROIKA_SOURCE_DIR "/examples/model", folder.path() / "model.gguf", {.type = "F16"});
    std::ifstream file(folder.path() / "model.gguf", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }();
  return bytes;
}

// 64 hexadecimal digits: that they are a checksum is checked by nobody who reads.
std::string name_of_blob(const std::string& bytes) {
  char digits[65];
  std::snprintf(digits, sizeof digits, "%064zx", std::hash<std::string>{}(bytes));
  return digits;
}

// By the program of the system.
std::string sha256_of_file(const std::filesystem::path& file) {
  std::string digits(64, '?');
  FILE* const pipe = ::popen(("sha256sum '" + file.string() + "'").c_str(), "r");
  REQUIRE(pipe);
  CHECK(std::fread(digits.data(), 1, 64, pipe) == 64);
  CHECK(::pclose(pipe) == 0);
  return digits;
}

Json layer(const TempFolder& store, const std::string& kind, const std::string& bytes) {
  const auto digest = name_of_blob(bytes);
  store.write("blobs/sha256-" + digest, bytes);
  return {{"mediaType", ours + kind}, {"digest", "sha256:" + digest}, {"size", bytes.size()}};
}
std::string manifest_of(const Json& layers) {
  return Json{
      {"schemaVersion", 2}, {"mediaType", "application/vnd.docker.distribution.manifest.v2+json"}, {"layers", layers}}
      .dump();
}

// "plain:latest", the file alone, and "maths:f16" with all that a manifest may say.
void write_store(const TempFolder& store) {
  const auto model = layer(store, "model", bundled_gguf());
  store.write(library + std::string("plain/latest"), manifest_of(Json::array({model})));
  store.write(
      library + std::string("maths/f16"),
      manifest_of(Json::array(
          {model, layer(store, "template", go_chatml), layer(store, "system", "Be brief."),
           layer(store, "params", R"({"stop":["<|im_end|>","Q:"],"top_k":7,"num_ctx":100,"num_gpu":9,"top_p":"x"})"),
           layer(store, "license", "Use it."), layer(store, "messages", "[]")})));
  store.write("manifests/registry.ollama.ai/anna/maths/v1", manifest_of(Json::array({model})));
}

struct StoreFixture : ApiFixture {
  StoreFixture() : ApiFixture(nullptr, {}, 200, write_store) {}
  std::string prompt() {
    return troika::models::Tokenizer::load(TROIKA_SOURCE_DIR "/examples/model").decode(asked().prompt, false);
  }
};

std::vector<std::string> names(const troika::serving::ModelStore& store) {
  std::vector<std::string> all;
  for (const auto& model : store.list()) all.push_back(model.name);
  std::ranges::sort(all);
  return all;
}

}  // namespace

TEST_CASE("the models of Ollama's own store are listed and shown as their manifests say") {
  StoreFixture api;
  const auto models = api.get("/api/tags")["models"];
  REQUIRE(models.size() == 3);
  for (const auto& model : models) {
    CHECK(model["size"] == bundled_gguf().size());
    CHECK(model["details"]["family"] == "llama");
    if (model["name"] == "maths:f16")
      CHECK(model["digest"] == sha256_of_file(api.folder.path() / library / "maths/f16"));
  }
  const auto shown = api.json("/api/show", {{"model", "Maths:F16"}});
  CHECK(shown["template"] == go_chatml);
  CHECK(shown["system"] == "Be brief.");
  CHECK(shown["license"] == "Use it.");
  const auto pad = [](std::string key) { return key + std::string(31 - key.size(), ' '); };
  CHECK(shown["parameters"] ==
        pad("num_ctx") + "100\n" + pad("stop") + "\"<|im_end|>\"\n" + pad("stop") + "\"Q:\"\n" + pad("top_k") + "7");
  CHECK(api.post("/api/show", {{"model", "anna/maths:v1"}}).status == 200);
  CHECK(api.post("/api/show", {{"model", "plain"}}).status == 200);
  CHECK(api.post("/api/show", {{"model", "maths"}}).status == 404);
}

TEST_CASE("a manifest's system message, template and options hold where a request says nothing") {
  StoreFixture api;
  const Json messages = Json::array({{{"role", "user"}, {"content", "Hi"}}});
  api.json("/api/chat", {{"model", "maths:f16"}, {"messages", messages}, {"stream", false}});
  CHECK_THAT(api.prompt(),
             ContainsSubstring(
                 "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"));
  CHECK(api.asked().sampling.top_k == 7);
  CHECK(api.asked().sampling.top_p == 0.9f);  // "x" was none
  CHECK(api.asked().max_tokens + static_cast<std::int64_t>(api.asked().prompt.size()) == 100);
  api.json("/api/chat", {{"model", "maths:f16"},
                         {"messages", messages},
                         {"stream", false},
                         {"options", {{"top_k", 3}, {"num_ctx", 90}}}});
  CHECK(api.asked().sampling.top_k == 3);
  CHECK(api.asked().max_tokens + static_cast<std::int64_t>(api.asked().prompt.size()) == 90);
  const Json own = Json::array({{{"role", "system"}, {"content", "Sing."}}, messages[0]});
  api.json("/v1/chat/completions", {{"model", "maths:f16"}, {"messages", own}});
  CHECK_THAT(api.prompt(), ContainsSubstring("Sing.") && !ContainsSubstring("Be brief."));
  CHECK(api.asked().sampling.top_k == 7);
  CHECK(api.asked().sampling.top_p == 1.0f);
  api.json("/v1/chat/completions", {{"model", "maths:f16"}, {"messages", messages}});
  CHECK_THAT(api.prompt(), ContainsSubstring("Be brief."));
  api.json("/api/generate", {{"model", "maths:f16"}, {"prompt", "Hi"}, {"stream", false}});
  CHECK_THAT(api.prompt(), ContainsSubstring("Be brief."));
  api.json("/api/generate", {{"model", "maths:f16"}, {"prompt", "Hi"}, {"system", "Sing."}, {"stream", false}});
  CHECK_THAT(api.prompt(), ContainsSubstring("Sing.") && !ContainsSubstring("Be brief."));
  api.json("/api/generate", {{"model", "maths:f16"}, {"prompt", "Hi"}, {"raw", true}, {"stream", false}});
  CHECK_THAT(api.prompt(), !ContainsSubstring("Be brief."));
  api.json("/api/generate", {{"model", "plain"}, {"prompt", "Hi"}, {"stream", false}});
  CHECK(api.asked().sampling.top_k == 40);
  CHECK(api.post("/api/chat", {{"model", "maths:f16"}, {"messages", 7}}).status == 400);
  CHECK(api.post("/api/generate", {{"model", "maths:f16"}, {"prompt", "x"}, {"options", 7}}).status == 400);
}

TEST_CASE("Ollama's own store is only read") {
  StoreFixture api;
  const auto files = [&] {
    return std::distance(std::filesystem::recursive_directory_iterator(api.folder.path()),
                         std::filesystem::recursive_directory_iterator());
  };
  const auto before = files();
  for (const auto& refused : {api.post("/api/copy", {{"source", "plain"}, {"destination", "twin"}}),
                              api.ask("DELETE", "/api/delete", R"({"model":"plain"})")}) {
    CHECK(refused.status == 400);
    CHECK_THAT(refused.body, ContainsSubstring("only read"));
  }
  CHECK(api.ask("DELETE", "/api/delete", R"({"model":"none"})").status == 404);
  CHECK(files() == before);
}

TEST_CASE("a hostile manifest is one line in the log and hides no other model") {
  const TempFolder store;
  write_store(store);
  const auto good = layer(store, "model", bundled_gguf());
  const auto with = [&](const char* key, const Json& value) {
    auto changed = good;
    changed[key] = value;
    return manifest_of(Json::array({changed}));
  };
  const auto missing = "sha256:" + std::string(64, '0');
  const std::vector<std::pair<std::string, std::string>> manifests{
      {"", "JSON"},
      {"null", "object"},
      {"{}", "layers"},
      {R"({"layers":7})", "layers"},
      {R"({"layers":[]})", "no file of a model"},
      {R"({"layers":[7]})", "object"},
      {std::string(100000, '['), "nested deeper"},
      {std::string(3 << 20, ' '), "bytes"},
      {manifest_of(Json(std::vector<Json>(100, good))), "100 of them"},
      {manifest_of(Json::array({good, good})), "several files"},
      {manifest_of(Json::array({good, layer(store, "adapter", "x")})), "adapter"},
      {manifest_of(Json::array({good, layer(store, "params", "[]")})), "object"},
      {manifest_of(Json::array({good, layer(store, "system", std::string(2 << 20, 'x'))})), "bytes"},
      {manifest_of(Json::array({layer(store, "model", "GGUF?")})), "truncated"},
      {with("digest", missing), "not there"},
      {with("digest", "sha256:../../../../etc/passwd"), "64 hexadecimal digits"},
      {with("digest", "sha256:" + std::string(61, '0') + "/.."), "64 hexadecimal digits"},
      {with("digest", std::string(1 << 19, 'x')), "64 hexadecimal digits"},
      {with("digest", 7), "digest"},
      {with("size", 5), "size"},
      {with("size", -1), "size"},
      {with("mediaType", nullptr), "mediaType"},
  };
  for (std::size_t i = 0; i < manifests.size(); ++i)
    store.write(library + ("bad" + std::to_string(i)) + "/latest", manifests[i].first);
  store.write("manifests/deep/a/b/c/d/e", "{}");
  store.write("manifests/shallow", "{}");
  store.write(std::string(library) + ".hidden/latest", "{}");
  std::vector<std::string> warnings;
  const troika::Log log([&](troika::LogLevel, std::string_view text) { warnings.emplace_back(text); },
                        troika::LogLevel::warning);
  const troika::serving::ModelStore models(store.path(), log);
  const std::vector<std::string> expected{"anna/maths:v1", "maths:f16", "plain:latest"};
  CHECK(names(models) == expected);
  CHECK(names(models) == expected);
  CHECK(warnings.size() == manifests.size());  // once each
  for (std::size_t i = 0; i < manifests.size(); ++i) {
    INFO(i << ": " << manifests[i].first.substr(0, 300));
    const auto about = "bad" + std::to_string(i) + "/latest";
    const auto warning =
        std::ranges::find_if(warnings, [&](const auto& text) { return text.find(about) != std::string::npos; });
    REQUIRE(warning != warnings.end());
    CHECK_THAT(*warning, ContainsSubstring(manifests[i].second));
    CHECK(warning->size() < 2000);
  }
}
