// SPDX-License-Identifier: Apache-2.0
//
// /api/embed, /api/embeddings and /v1/embeddings.
#include "embed_request.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <numeric>

#include "text_request.hpp"

namespace troika::serving {
namespace {

constexpr std::size_t most_inputs = 4096;  // each costs an answer of a vector

EmbedRequest read_ollama(const Fields& fields, EmbedRequest::Form form) {
  EmbedRequest request{.model = model_name(fields), .form = form};
  request.truncate = fields.boolean("truncate", true);
  if (fields.has("options"))
    request.num_ctx =
        std::max<std::int64_t>(0, fields.object("options").integer("num_ctx", -largest_int32, largest_int32, 0));
  if (const Json* value = fields.find("keep_alive")) request.keep_alive = to_duration(*value, "keep_alive");
  return request;
}

std::vector<std::int32_t> tokens_of(const Json& list) {
  std::vector<std::int32_t> ids;
  for (const Json& id : list)
    ids.push_back(static_cast<std::int32_t>(models::to_integer(id, 0, largest_int32, "a token of input")));
  return ids;
}

// One text or several.
std::vector<EmbedRequest::Input> texts_of(const Json& input) {
  std::vector<EmbedRequest::Input> inputs;
  if (input.is_string()) {
    inputs.emplace_back(input.get<std::string>());
  } else if (input.is_array()) {
    if (input.size() > most_inputs) {
      throw Refusal(400, "a request may have up to " + std::to_string(most_inputs) + " inputs, not " +
                             std::to_string(input.size()));
    }
    for (const Json& text : input) {
      if (!text.is_string())
        throw Refusal(400,
                      "invalid input type: input is a string or a list of strings, which has " + models::shown(text));
      inputs.emplace_back(text.get<std::string>());
    }
  } else {
    throw Refusal(400, "invalid input type: input is a string or a list of strings, not " + models::shown(input));
  }
  return inputs;
}

void make_unit(std::vector<float>& vector) {
  const double square = std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0);
  const double scale = 1 / std::max(1e-12, std::sqrt(square));
  for (auto& value : vector) value = static_cast<float>(value * scale);
}

// Written as text at once: a JSON value of each number would take several times the memory.
void append(std::string& text, const std::vector<float>& vector) {
  char digits[32];
  text += '[';
  for (const auto value : vector) {
    if (text.back() != '[') text += ',';
    text.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  }
  text += ']';
}

// Of the bytes of the numbers, little-endian.
void append_base64(std::string& text, const std::vector<float>& vector) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<unsigned char> bytes;
  for (const auto value : vector) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<unsigned char>(bits >> shift));
  }
  text += '"';
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto left = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) group = group << 8 | (j < left ? bytes[i + j] : 0u);
    for (std::size_t j = 0; j < 4; ++j) text += j <= left ? digits[group >> (18 - 6 * j) & 63] : '=';
  }
  text += '"';
}

}  // namespace

EmbedRequest parse_embed(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json, "the request");
  auto request = read_ollama(fields, EmbedRequest::Form::embed);
  request.dimensions = fields.integer("dimensions", 0, largest_int32, 0);
  const Json* const input = fields.find("input");
  // Nothing to embed only loads the model.
  if (input != nullptr && !(input->is_string() && input->get_ref<const std::string&>().empty()))
    request.inputs = texts_of(*input);
  return request;
}

EmbedRequest parse_embeddings(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json, "the request");
  auto request = read_ollama(fields, EmbedRequest::Form::embeddings);
  if (auto prompt = fields.string("prompt", ""); !prompt.empty()) request.inputs.emplace_back(std::move(prompt));
  return request;
}

EmbedRequest parse_openai_embeddings(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json, "the request");
  EmbedRequest request{.model = model_name(fields), .form = EmbedRequest::Form::openai};
  const auto encoding = fields.string("encoding_format", "float");
  if (encoding == "base64")
    request.form = EmbedRequest::Form::openai_base64;
  else if (encoding != "float")
    throw Refusal(400,
                  "Invalid value for 'encoding_format' = " + encoding + ". Supported values: ['float', 'base64'].");
  request.dimensions = fields.integer("dimensions", 1, largest_int32, 0);
  const Json& input = fields.get("input");
  if (input.empty() || (input.is_string() && input.get_ref<const std::string&>().empty()))
    throw Refusal(400, "invalid input: nothing to embed");
  if (input.is_array() && input[0].is_number()) {
    request.inputs.emplace_back(tokens_of(input));
  } else if (input.is_array() && input[0].is_array()) {
    if (input.size() > most_inputs)
      throw Refusal(400, "a request may have up to " + std::to_string(most_inputs) + " inputs");
    for (const Json& list : input) {
      if (!list.is_array())
        throw Refusal(400, "invalid input type: lists of tokens are not mixed with " + models::shown(list));
      request.inputs.emplace_back(tokens_of(list));
    }
  } else {
    request.inputs = texts_of(input);
  }
  return request;
}

HttpAnswer embed_answer(const EmbedRequest& request, EmbedEnd end) {
  using enum EmbedRequest::Form;
  const bool openai_form = request.form == openai || request.form == openai_base64;
  for (auto& vector : end.vectors) {
    if (request.dimensions > 0 && static_cast<std::size_t>(request.dimensions) < vector.size())
      vector.resize(static_cast<std::size_t>(request.dimensions));
    if (request.form != embeddings) make_unit(vector);
  }
  std::string list = "[";
  for (std::size_t i = 0; i < end.vectors.size(); ++i) {
    if (i > 0) list += ',';
    if (openai_form) list += R"({"object":"embedding","index":)" + std::to_string(i) + R"(,"embedding":)";
    request.form == openai_base64 ? append_base64(list, end.vectors[i]) : append(list, end.vectors[i]);
    if (openai_form) list += '}';
  }
  list += ']';
  if (request.form == embeddings) {
    const auto one = std::string_view(list).substr(1, list.size() - 2);
    return {200,
            {{"Content-Type", "application/json; charset=utf-8"}},
            R"({"embedding":)" + (one.empty() ? "[]" : std::string(one)) + "}"};
  }
  Json rest{{"model", request.model}};
  if (openai_form) {
    rest["object"] = "list";
    rest["usage"] = {{"prompt_tokens", end.prompt_tokens}, {"total_tokens", end.prompt_tokens}};
  } else {
    rest["total_duration"] = end.total.count();
    rest["load_duration"] = end.load.count();
    rest["prompt_eval_count"] = end.prompt_tokens;
  }
  auto answer = json_answer(200, rest);
  answer.body.pop_back();
  answer.body += std::string(openai_form ? R"(,"data":)" : R"(,"embeddings":)") + list + '}';
  return answer;
}

}  // namespace troika::serving
