// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the two APIs have in common: a request for text, and how its answer is written down.

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <troika/layers/sampler.hpp>
#include <troika/models/grammar/grammar.hpp>
#include <troika/models/text/answer_parts.hpp>
#include <troika/models/text/chat.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/http_server.hpp>

#include "models/json.hpp"

namespace troika::serving {

using models::Fields;
using models::Json;

// Of token ids, and of counts of tokens.
inline constexpr std::int64_t largest_int32 = std::numeric_limits<std::int32_t>::max();

// What is answered instead of what was asked for.
struct Refusal : std::runtime_error {
  Refusal(int code, const std::string& text) : std::runtime_error(text), status(code) {}
  int status;
};

struct TextRequest {
  std::string model;
  bool chat = false;  // of messages, or else of system and prompt
  std::vector<models::ChatMessage> messages{};
  std::vector<std::string> tools{};  // each a JSON object, as text
  std::optional<bool> think{};
  std::string prompt{}, system{};
  std::string suffix{};                 // what comes behind the answer
  bool raw = false;                     // the prompt as it is, without the model's template
  std::vector<std::int32_t> context{};  // tokens before the prompt: of an earlier answer, or of who made them himself
  SamplingOptions sampling{};
  std::optional<models::Grammar> grammar{};  // of the answer
  std::optional<int> logprobs{};             // of each token, and of so many of the likeliest
  std::vector<std::string> stop{};
  std::int64_t max_tokens = 0, num_ctx = 0;  // 0: what the model takes
  bool ignore_eos = false;                   // goes on to max_tokens
  bool truncate = true;                      // what is too long, rather than refusing it
  bool stream = true, include_usage = false;
  std::optional<std::chrono::duration<double>> keep_alive{};

  // Nothing to write: it only loads the model, or unloads it.
  bool only_loads() const { return !raw && (chat ? messages.empty() : prompt.empty() && suffix.empty()); }
  bool unloads() const { return only_loads() && keep_alive && keep_alive->count() == 0; }
};

// A token of an answer, and how likely it was; and the likeliest ones in its place.
struct ScoredToken {
  std::string bytes;  // of special tokens, how they are spelled
  float logprob = 0;
  std::vector<ScoredToken> likeliest{};
};

struct TextEnd {
  std::string reason;  // "stop", "length", "load", "unload"
  std::int64_t prompt_tokens = 0, tokens = 0;
  std::chrono::nanoseconds total{}, load{}, prompt_time{}, token_time{};
  std::vector<std::int32_t> context{};  // prompt and answer
  std::string devices{};                // that worked on it
  std::vector<ScoredToken> scored{};    // those that no piece of a stream had
};

using AnswerPart = models::AnswerParts::Part;

struct TextAnswer {
  std::string text{}, thinking{};
  std::vector<models::ToolCall> calls{};
  std::vector<ScoredToken> scored{};
};

// How the answer to one request is written. From one thread at a time.
class TextFormat {
 public:
  virtual ~TextFormat() = default;
  virtual std::string content_type() const = 0;  // of a stream
  // Likewise, with the tokens that were drawn since the piece before.
  virtual std::string piece(const AnswerPart& part, const std::vector<ScoredToken>& scored) = 0;
  virtual std::string last(const TextEnd& end) = 0;            // likewise
  virtual std::string broken(const std::string& message) = 0;  // likewise, when it cannot go on
  virtual std::string whole(const TextAnswer& answer, const TextEnd& end) = 0;
};

TextRequest parse_generate(std::string_view body);
TextRequest parse_chat(std::string_view body);
std::unique_ptr<TextFormat> ollama_format(const TextRequest& request);

TextRequest parse_openai_chat(std::string_view body);
TextRequest parse_openai_completion(std::string_view body);
std::unique_ptr<TextFormat> openai_format(const TextRequest& request);

HttpAnswer ollama_error(int status, const std::string& message);
HttpAnswer openai_error(int status, const std::string& message);

// Shared by the two
Json parse_body(std::string_view body);        // an object
std::string model_name(const Fields& fields);  // "model", or as it was called before, "name"
std::vector<std::string> stop_strings(const Fields& fields, bool one_is_enough);
std::uint64_t random_seed();
HttpAnswer json_answer(int status, const Json& json);
std::string dump(const Json& json);  // never throws for text that is not UTF-8
std::string rfc3339(std::chrono::system_clock::time_point time);
// Seconds, or a duration as Go writes them ("1h30m", "500ms"); below 0: for ever.
std::chrono::duration<double> to_duration(const Json& value, const std::string& where);

}  // namespace troika::serving
