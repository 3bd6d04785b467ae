// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <troika/serving/http_server.hpp>

namespace troika::serving {

// A request for embeddings.
struct EmbedRequest {
  using Input = std::variant<std::string, std::vector<std::int32_t>>;  // a text, or tokens of the model

  std::string model;
  std::vector<Input> inputs{};
  bool truncate = true;         // what is too long, rather than refusing it
  std::int64_t dimensions = 0;  // the first so many of a vector, 0: all
  std::int64_t num_ctx = 0;     // 0: what the model takes
  std::optional<std::chrono::duration<double>> keep_alive{};
  // How the answer is written: of /api/embed, of /api/embeddings, of /v1/embeddings with numbers or with base64
  enum class Form : std::uint8_t { embed, embeddings, openai, openai_base64 } form = Form::embed;
};

EmbedRequest parse_embed(std::string_view body);
EmbedRequest parse_embeddings(std::string_view body);
EmbedRequest parse_openai_embeddings(std::string_view body);

struct EmbedEnd {
  std::vector<std::vector<float>> vectors{};  // in the order of the inputs, as they were pooled
  std::int64_t prompt_tokens = 0;
  std::chrono::nanoseconds total{}, load{};
};
// All but /api/embeddings give vectors of length 1.
HttpAnswer embed_answer(const EmbedRequest& request, EmbedEnd end);

}  // namespace troika::serving
