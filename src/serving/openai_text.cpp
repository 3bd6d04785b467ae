// SPDX-License-Identifier: Apache-2.0
//
// /v1/chat/completions and /v1/completions.
#include <algorithm>
#include <atomic>
#include <limits>

#include "answer_format.hpp"
#include "logprobs.hpp"
#include "text_request.hpp"
#include "tools.hpp"

namespace troika::serving {
namespace {

TextRequest openai_request(const Fields& fields, std::string_view body) {
  TextRequest request{.model = model_name(fields), .grammar = read_response_format(fields, body)};
  const auto refuse = [&](const char* key, const char* why) {
    const Json* value = fields.find(key);
    if (value == nullptr || (value->is_boolean() && !value->get<bool>()) ||
        ((value->is_array() || value->is_string()) && value->empty()))
      return;
    throw Refusal(501, std::string(key) + " " + why);
  };
  refuse("functions", "are not supported yet");
  refuse("echo", "is not supported");
  refuse("audio", "is not supported");
  for (const char* count : {"n", "best_of"}) {
    if (fields.integer(count, 1, 1 << 20, 1) > 1) throw Refusal(501, std::string(count) + " above 1 is not supported");
  }
  SamplingOptions& sampling = request.sampling;
  const auto number = [&](const char* key, double low, double high, double otherwise) {
    return static_cast<float>(fields.number(key, low, high, otherwise));
  };
  sampling = {.temperature = number("temperature", 0, 1e6, 1),
              .top_p = std::max(number("top_p", 0, 1, 1), 1e-6f),
              .seed = random_seed()};
  sampling.presence_penalty = number("presence_penalty", -2, 2, 0);
  sampling.frequency_penalty = number("frequency_penalty", -2, 2, 0);
  // Not OpenAI's, but of vLLM and others, under these names
  sampling.top_k = static_cast<int>(std::clamp<std::int64_t>(fields.integer("top_k", -1, largest_int32, 0), 0, 1024));
  sampling.min_p = number("min_p", 0, 1, 0);
  sampling.repeat_penalty = number("repetition_penalty", 1e-3, 1e3, 1);
  if (fields.has("seed")) {
    sampling.seed = static_cast<std::uint64_t>(
        fields.integer("seed", std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()));
  }
  request.max_tokens =
      fields.integer("max_completion_tokens", 1, largest_int32, fields.integer("max_tokens", 1, largest_int32, 0));
  request.ignore_eos = fields.boolean("ignore_eos", false);
  request.stop = stop_strings(fields, true);
  request.stream = fields.boolean("stream", false);
  if (fields.has("stream_options"))
    request.include_usage = fields.object("stream_options").boolean("include_usage", false);
  request.truncate = false;
  return request;
}

// A string, or parts of which each is text.
std::string content_of(const Fields& message) {
  const Json* content = message.find("content");
  if (content == nullptr) return "";
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  for (const Json& entry : message.array("content")) {
    const Fields part(entry, "a part of a message");
    if (part.string("type") != "text")
      throw Refusal(400, "this model takes parts of type \"text\", not " + models::shown(part.get("type")));
    text += part.string("text");
  }
  return text;
}

class OpenAiFormat final : public TextFormat {
 public:
  explicit OpenAiFormat(const TextRequest& request)
      : model_(request.model),
        chat_(request.chat),
        usage_(request.include_usage),
        created_(std::chrono::system_clock::now()) {
    static std::atomic<std::uint64_t> counter{random_seed() >> 16};
    id_ = (chat_ ? "chatcmpl-" : "cmpl-") + std::to_string(counter++);
  }

  std::string content_type() const override { return "text/event-stream"; }
  std::string piece(const AnswerPart& part, const std::vector<ScoredToken>& scored) override {
    Json choice{{"index", 0}, {"finish_reason", nullptr}};
    if (chat_) {
      Json& delta = choice["delta"];
      switch (part.kind) {
        case AnswerPart::Kind::text: delta["content"] = part.text; break;
        case AnswerPart::Kind::thinking: delta["reasoning_content"] = part.text; break;
        case AnswerPart::Kind::call: delta["tool_calls"] = Json::array({call_of(part.call, calls_, true)}); break;
      }
      calls_ += part.kind == AnswerPart::Kind::call;
      if (first_) delta["role"] = "assistant";
    } else {
      choice["text"] = part.text;
    }
    add_logprobs(choice, scored);
    first_ = false;
    return chunk(Json::array({choice}));
  }
  std::string last(const TextEnd& end) override {
    std::string text = first_ && chat_ ? piece({}, {}) : "";
    Json choice{{"index", 0}, {"finish_reason", reason(end)}};
    if (chat_)
      choice["delta"] = Json::object();
    else
      choice["text"] = "";
    add_logprobs(choice, end.scored);
    text += chunk(Json::array({choice}));
    if (usage_) {
      Json json = head(Json::array());
      json["usage"] = used(end);
      json["devices"] = end.devices;
      text += event(json);
    }
    return text + "data: [DONE]\n\n";
  }
  std::string broken(const std::string& message) override {
    return "data: " + openai_error(500, message).body + "\n\n";
  }
  std::string whole(const TextAnswer& answer, const TextEnd& end) override {
    Json choice{{"index", 0}};
    if (chat_) {
      Json& message = choice["message"] = {{"role", "assistant"}, {"content", answer.text}};
      if (!answer.thinking.empty()) message["reasoning_content"] = answer.thinking;
      for (const auto& call : answer.calls) message["tool_calls"].push_back(call_of(call, calls_++, false));
      if (calls_ > 0 && answer.text.empty()) message["content"] = nullptr;
    } else {
      choice["text"] = answer.text;
    }
    choice["finish_reason"] = reason(end);
    add_logprobs(choice, answer.scored);
    Json json = head(Json::array({choice}));
    if (chat_) json["object"] = "chat.completion";
    json["usage"] = used(end);
    return dump(json);
  }

 private:
  std::string reason(const TextEnd& end) const {
    return calls_ > 0 && end.reason == "stop" ? "tool_calls" : end.reason;
  }
  void add_logprobs(Json& choice, const std::vector<ScoredToken>& scored) {
    if (scored.empty()) return;
    choice["logprobs"] = chat_ ? Json{{"content", logprobs_json(scored)}, {"refusal", nullptr}}
                               : completion_logprobs_json(scored, text_offset_);
  }
  Json call_of(const models::ToolCall& call, int index, bool streamed) const {
    Json json{{"id", "call_" + id_.substr(id_.find('-') + 1) + "_" + std::to_string(index)},
              {"type", "function"},
              {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
    if (streamed) json["index"] = index;
    return json;
  }
  static std::string event(const Json& json) { return "data: " + dump(json) + "\n\n"; }
  std::string chunk(Json choices) const {
    Json json = head(std::move(choices));
    if (usage_) json["usage"] = nullptr;  // as OpenAI does where the last part has it
    return event(json);
  }
  Json head(Json choices) const {
    return {{"id", id_},
            {"object", chat_ ? "chat.completion.chunk" : "text_completion"},
            {"created", std::chrono::system_clock::to_time_t(created_)},
            {"model", model_},
            {"system_fingerprint", "fp_troika"},
            {"choices", std::move(choices)}};
  }
  static Json used(const TextEnd& end) {
    return {{"prompt_tokens", end.prompt_tokens},
            {"completion_tokens", end.tokens},
            {"total_tokens", end.prompt_tokens + end.tokens}};
  }

  std::string model_, id_;
  bool chat_, usage_, first_ = true;
  int calls_ = 0;
  std::int64_t text_offset_ = 0;  // of the next token, in characters
  std::chrono::system_clock::time_point created_;
};

}  // namespace

TextRequest parse_openai_chat(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json, "the request");
  TextRequest request = openai_request(fields, body);
  request.chat = true;
  request.tools = read_tools(fields, body);
  if (fields.string("reasoning_effort", "") == "none") request.think = false;
  if (fields.boolean("logprobs", false))
    request.logprobs = read_likeliest(fields, "top_logprobs");
  else if (fields.has("top_logprobs"))
    fields.fail("top_logprobs", "needs logprobs to be true");
  for (const Json& entry : fields.array("messages")) {
    const Fields message(entry, "a message");
    const auto role = message.string("role");
    request.messages.push_back(
        {role == "developer" ? "system" : role, content_of(message), message.string("reasoning_content", "")});
  }
  read_calls(fields, body, request.messages);
  if (request.messages.empty()) throw Refusal(400, "messages must have at least one");
  return request;
}

TextRequest parse_openai_completion(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json, "the request");
  TextRequest request = openai_request(fields, body);
  if (const Json* logprobs = fields.find("logprobs"); logprobs && *logprobs != false)
    request.logprobs = read_likeliest(fields, "logprobs");
  const Json& given = fields.get("prompt");
  const Json& prompt = given.is_array() && given.size() == 1 && !given[0].is_number() ? given[0] : given;
  if (prompt.is_string()) {
    request.prompt = prompt.get<std::string>();
  } else if (prompt.is_array() && std::ranges::all_of(prompt, [](const Json& id) { return id.is_number(); })) {
    request.raw = true;
    for (const Json& id : prompt)
      request.context.push_back(
          static_cast<std::int32_t>(models::to_integer(id, 0, largest_int32, "a token of prompt")));
  } else {
    throw Refusal(400, "prompt must be one string, or the tokens of one");
  }
  request.suffix = fields.string("suffix", "");
  if (!request.suffix.empty() && request.raw) throw Refusal(400, "suffix needs a prompt that is text");
  if (request.suffix.empty() && (prompt.empty() || prompt == "")) throw Refusal(400, "prompt must not be empty");
  return request;
}

std::unique_ptr<TextFormat> openai_format(const TextRequest& request) {
  return std::make_unique<OpenAiFormat>(request);
}

HttpAnswer openai_error(int status, const std::string& message) {
  const char* const type = status == 404                   ? "not_found_error"
                           : status >= 400 && status < 500 ? "invalid_request_error"
                                                           : "api_error";
  return json_answer(status,
                     {{"error", {{"message", message}, {"type", type}, {"param", nullptr}, {"code", nullptr}}}});
}

}  // namespace troika::serving
