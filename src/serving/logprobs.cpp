// SPDX-License-Identifier: Apache-2.0
#include "logprobs.hpp"

#include <algorithm>

namespace troika::serving {
namespace {

// What OpenAI gives for tokens that cannot come; JSON has no infinity.
float finite(float logprob) { return std::max(logprob, -9999.0f); }

Json json_of(const ScoredToken& token) {
  Json bytes = Json::array();
  for (const char byte : token.bytes) bytes.push_back(static_cast<unsigned char>(byte));
  return {{"token", token.bytes}, {"logprob", finite(token.logprob)}, {"bytes", std::move(bytes)}};
}

}  // namespace

int read_likeliest(const Fields& fields, const char* member) {
  return static_cast<int>(fields.integer(member, 0, 20, 0));
}

Json logprobs_json(const std::vector<ScoredToken>& tokens) {
  Json list = Json::array();
  for (const auto& token : tokens) {
    Json entry = json_of(token);
    Json& likeliest = entry["top_logprobs"] = Json::array();
    for (const auto& other : token.likeliest) likeliest.push_back(json_of(other));
    list.push_back(std::move(entry));
  }
  return list;
}

Json completion_logprobs_json(const std::vector<ScoredToken>& tokens, std::int64_t& offset) {
  Json json{{"tokens", Json::array()},
            {"token_logprobs", Json::array()},
            {"top_logprobs", Json::array()},
            {"text_offset", Json::array()}};
  for (const auto& token : tokens) {
    json["tokens"].push_back(token.bytes);
    json["token_logprobs"].push_back(finite(token.logprob));
    Json likeliest = Json::object();
    for (const auto& other : token.likeliest) likeliest[other.bytes] = finite(other.logprob);
    likeliest[token.bytes] = finite(token.logprob);  // it is there, likely or not
    json["top_logprobs"].push_back(std::move(likeliest));
    json["text_offset"].push_back(offset);
    offset += std::ranges::count_if(token.bytes, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
  }
  return json;
}

}  // namespace troika::serving
