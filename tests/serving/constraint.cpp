// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <support/catch.hpp>
#include <support/loaded_model.hpp>
#include <support/schema_validator.hpp>

#include "answers.hpp"

#include <troika/serving/engine.hpp>

using troika::serving::EngineOptions;
using troika::serving::Finish;
using troika::serving::GenerationRequest;
using troika::serving::make_engine;
using Json = nlohmann::json;

namespace {

// Of the 101 tokens of a tiny model: printable ASCII, some pieces, and one that ends the text.
std::vector<std::string> spelled() {
  std::vector<std::string> tokens;
  for (char c = ' '; c <= '~'; ++c) tokens.emplace_back(1, c);
  for (const char* piece : {"{\"", "\": ", "\"}", "true", "\", \"", ""}) tokens.emplace_back(piece);
  return tokens;
}
const std::vector<std::int32_t> ends{100};

// Each of them bounded, so that every answer becomes whole.
const std::vector<std::string> schemas{
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":9},"ok":{"type":"boolean"},"size":{"type":"number"}},"required":["name","size"]})",
    R"({"type":"array","items":{"enum":["red","green",7,null]},"minItems":2,"maxItems":6})",
    R"({"oneOf":[{"type":"integer"},{"type":"array","items":{"type":"string","pattern":"^[A-C]{1,4}-\\d\\d$"},"maxItems":3}]})"};

std::vector<GenerationRequest> constrained_requests() {
  const auto words = spelled();
  const auto tokens = std::make_shared<const troika::models::TokenBytes>(words);
  auto requests = mixed_requests(36);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (i % 4 == 3) continue;  // some are free, in the same steps
    auto& request = requests[i];
    request.max_tokens = 250;
    request.ends = ends;
    request.sampling = {
        .temperature = 1.5f, .top_k = i % 2 == 0 ? 0 : 20, .top_p = i % 3 == 0 ? 0.9f : 1.0f, .seed = i};
    if (i % 5 == 0) request.sampling = {};  // the likeliest
    request.constraint = {troika::models::Grammar::of_schema(schemas[i % schemas.size()]), tokens};
  }
  return requests;
}

std::vector<Tokens> run(int devices, EngineOptions options, const LoadedModel& model) {
  const auto requests = constrained_requests();
  const auto words = spelled();
  options.kv_type = troika::KvType::f32;
  const auto engine = make_engine(exact_devices(devices), model.folder.path(), std::move(options));
  std::vector<Answer> answers;
  for (const auto& request : requests) answers.emplace_back(*engine, request);
  std::vector<Tokens> all;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto end = answers[i].end();
    INFO(end.error);
    all.push_back(answers[i].tokens());
    if (!requests[i].constraint) continue;
    std::string text;
    for (const auto token : all.back()) text += words[static_cast<std::size_t>(token)];
    CAPTURE(devices, i, text);
    CHECK(end.finish == Finish::stop);
    REQUIRE(Json::accept(text));
    CHECK(troika::test::SchemaValidator(Json::parse(requests[i].constraint->grammar.source()))(Json::parse(text)));
  }
  return all;
}

}  // namespace

TEST_CASE("answers of a grammar are whole and valid, the same on every number of devices, beside free ones") {
  const LoadedModel model(long_model("llama"));
  const auto expected = run(1, {}, model);
  for (const int devices : {2, 3}) CHECK(run(devices, {}, model) == expected);
  CHECK(run(2, {.kv_tokens = 512}, model) == expected);  // pages run out, and requests wait in the middle
}

TEST_CASE("an answer of a grammar goes on where it was when a device fails, and on another engine") {
  const LoadedModel model(long_model("llama"));
  const auto expected = run(3, {}, model);
  EngineOptions options;
  options.before_step = [](int device, std::uint64_t step) {
    if (device == 1 && step == 12) throw std::runtime_error("broken on purpose");
  };
  CHECK(run(3, options, model) == expected);

  auto request = constrained_requests()[0];
  request.drawn.assign(expected[0].begin(), expected[0].begin() + 5);
  const auto engine = make_engine(exact_devices(2), model.folder.path(), {.kv_type = troika::KvType::f32});
  Answer rest(*engine, request);
  CHECK(rest.end().finish == Finish::stop);
  CHECK(rest.tokens() == Tokens(expected[0].begin() + 5, expected[0].end()));
  request.drawn = {50};
  CHECK_THROWS_AS(engine->start(request, {}), troika::Error);
}

TEST_CASE("an answer for which there are no tokens fails, and says so") {
  const LoadedModel model(long_model("llama"));
  const auto engine = make_engine(exact_devices(2), model.folder.path());
  const std::vector<std::string> words{"1"};
  GenerationRequest request{.prompt = {1}};
  request.constraint = {troika::models::Grammar::of_schema(R"({"type":"null"})"),
                        std::make_shared<const troika::models::TokenBytes>(words)};
  for (const float temperature : {0.0f, 1.0f}) {
    for (const int top_k : {0, 5}) {
      request.sampling = {.temperature = temperature, .top_k = top_k, .top_p = 0.9f};
      const auto end = Answer(*engine, request).end();
      CHECK(end.finish == Finish::failed);
      CHECK_THAT(end.error, Catch::Matchers::ContainsSubstring("no token"));
    }
  }
  CHECK(Answer(*engine, {.prompt = {1}, .max_tokens = 3}).end().finish == Finish::length);
}
