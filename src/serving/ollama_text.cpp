// SPDX-License-Identifier: Apache-2.0
//
// /api/generate and /api/chat.
#include <algorithm>
#include <limits>

#include "answer_format.hpp"
#include "logprobs.hpp"
#include "text_request.hpp"
#include "tools.hpp"

namespace troika::serving {
namespace {

void refuse_images(const Fields& fields) {
  if (fields.has("images") && !fields.array("images").empty()) throw Refusal(400, "this model does not take images");
}

// Fields that ask for what is not built are refused, not overlooked: the answer would not be what was asked for.
void refuse_unbuilt(const Fields& fields) {
  const auto set = [&](const char* key) {
    const Json* value = fields.find(key);
    return value != nullptr && !(value->is_boolean() && !value->get<bool>()) && *value != "" &&
           !((value->is_array() || value->is_object()) && value->empty());
  };
  refuse_images(fields);
  if (set("template")) throw Refusal(400, "a template of your own is not supported; raw takes a prompt as it is");
}

void read_options(const Fields& fields, TextRequest& request) {
  SamplingOptions& sampling = request.sampling;
  sampling = {.temperature = 0.8f, .top_k = 40, .top_p = 0.9f, .seed = random_seed()};
  if (!fields.has("options")) return;
  const Fields options(fields.get("options"), "options");
  const auto number = [&](const char* key, double low, double high, float otherwise) {
    return static_cast<float>(options.number(key, low, high, otherwise));
  };
  sampling.temperature = number("temperature", 0, 1e6, sampling.temperature);
  // The sampler sorts so many candidates at most; those behind them have next to no probability.
  sampling.top_k = static_cast<int>(
      std::clamp<std::int64_t>(options.integer("top_k", -largest_int32, largest_int32, sampling.top_k), 0, 1024));
  sampling.top_p = std::clamp(number("top_p", -1e6, 1e6, sampling.top_p), 1e-6f, 1.0f);
  sampling.min_p = number("min_p", 0, 1, sampling.min_p);
  sampling.repeat_penalty = number("repeat_penalty", 1e-3, 1e3, sampling.repeat_penalty);
  sampling.presence_penalty = number("presence_penalty", -1e3, 1e3, sampling.presence_penalty);
  sampling.frequency_penalty = number("frequency_penalty", -1e3, 1e3, sampling.frequency_penalty);
  sampling.repeat_last_n =
      static_cast<int>(options.integer("repeat_last_n", -1, largest_int32, sampling.repeat_last_n));
  const auto seed =
      options.integer("seed", std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max(), -1);
  if (seed != -1) sampling.seed = static_cast<std::uint64_t>(seed);
  request.max_tokens = std::max<std::int64_t>(0, options.integer("num_predict", -largest_int32, largest_int32, 0));
  request.num_ctx = std::max<std::int64_t>(0, options.integer("num_ctx", -largest_int32, largest_int32, 0));
  request.stop = stop_strings(options, false);
}

TextRequest ollama_request(const Fields& fields, std::string_view body) {
  TextRequest request{.model = model_name(fields)};
  refuse_unbuilt(fields);
  read_options(fields, request);
  request.grammar = read_format(fields, body);
  request.stream = fields.boolean("stream", true);
  // Levels are of models that troika does not have
  if (const Json* think = fields.find("think")) request.think = think->is_string() || fields.boolean("think", false);
  request.truncate = fields.boolean("truncate", true);
  const auto likeliest = read_likeliest(fields, "top_logprobs");
  if (fields.boolean("logprobs", false)) request.logprobs = likeliest;
  if (const Json* value = fields.find("keep_alive")) request.keep_alive = to_duration(*value, "keep_alive");
  return request;
}

class OllamaFormat final : public TextFormat {
 public:
  explicit OllamaFormat(const TextRequest& request) : model_(request.model), chat_(request.chat), raw_(request.raw) {}

  std::string content_type() const override { return "application/x-ndjson"; }
  std::string piece(const AnswerPart& part, const std::vector<ScoredToken>& scored) override {
    TextAnswer one{.scored = scored};
    if (part.kind == AnswerPart::Kind::call)
      one.calls.push_back(part.call);
    else
      (part.kind == AnswerPart::Kind::thinking ? one.thinking : one.text) = part.text;
    return dump(json_of(one, false)) + "\n";
  }
  std::string last(const TextEnd& end) override { return dump(finished({.scored = end.scored}, end)) + "\n"; }
  std::string broken(const std::string& message) override { return dump({{"error", message}}) + "\n"; }
  std::string whole(const TextAnswer& answer, const TextEnd& end) override { return dump(finished(answer, end)); }

 private:
  Json json_of(const TextAnswer& answer, bool done) {
    Json json{{"model", model_}, {"created_at", rfc3339(std::chrono::system_clock::now())}, {"done", done}};
    if (chat_)
      json["message"] = {{"role", "assistant"}, {"content", answer.text}};
    else
      json["response"] = answer.text;
    if (!answer.scored.empty()) json["logprobs"] = logprobs_json(answer.scored);
    Json& message = chat_ ? json["message"] : json;
    if (!answer.thinking.empty()) message["thinking"] = answer.thinking;
    for (const auto& call : answer.calls) {
      message["tool_calls"].push_back(
          {{"function",
            {{"index", calls_++}, {"name", call.name}, {"arguments", models::parse_json(call.arguments, "a call")}}}});
    }
    return json;
  }
  Json finished(const TextAnswer& answer, const TextEnd& end) {
    Json json = json_of(answer, true);
    json["done_reason"] = end.reason;
    if (end.reason == "load" || end.reason == "unload") return json;
    if (!chat_ && !raw_) json["context"] = end.context;
    json["total_duration"] = end.total.count();
    json["load_duration"] = end.load.count();
    json["prompt_eval_count"] = end.prompt_tokens;
    json["prompt_eval_duration"] = end.prompt_time.count();
    json["eval_count"] = end.tokens;
    json["eval_duration"] = end.token_time.count();
    return json;
  }

  std::string model_;
  bool chat_, raw_;
  int calls_ = 0;
};

}  // namespace

TextRequest parse_generate(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json, "the request");
  TextRequest request = ollama_request(fields, body);
  request.prompt = fields.string("prompt", "");
  request.suffix = fields.string("suffix", "");
  request.system = fields.string("system", "");
  request.raw = fields.boolean("raw", false);
  if (fields.has("context")) {
    for (const Json& id : fields.array("context"))
      request.context.push_back(static_cast<std::int32_t>(models::to_integer(id, 0, largest_int32, "context")));
  }
  if (request.raw && (!request.system.empty() || !request.context.empty())) {
    throw Refusal(400, "raw mode does not support template, system, or context");
  }
  if (!request.suffix.empty() && !request.context.empty()) throw Refusal(400, "suffix does not go with context");
  return request;
}

TextRequest parse_chat(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json, "the request");
  TextRequest request = ollama_request(fields, body);
  request.chat = true;
  request.tools = read_tools(fields, body);
  if (!fields.has("messages")) return request;
  for (const Json& entry : fields.array("messages")) {
    const Fields message(entry, "a message");
    refuse_images(message);
    request.messages.push_back({message.string("role"), message.string("content", ""), message.string("thinking", "")});
  }
  read_calls(fields, body, request.messages);
  return request;
}

std::unique_ptr<TextFormat> ollama_format(const TextRequest& request) {
  return std::make_unique<OllamaFormat>(request);
}

HttpAnswer ollama_error(int status, const std::string& message) { return json_answer(status, {{"error", message}}); }

}  // namespace troika::serving
