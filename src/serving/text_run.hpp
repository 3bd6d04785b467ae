// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <troika/models/text/stream_decoder.hpp>
#include <troika/serving/http_server.hpp>
#include <troika/serving/model_host.hpp>
#include <troika/serving/stop_strings.hpp>

#include "text_request.hpp"
#include "workers.hpp"

namespace troika::serving {

using ErrorAnswer = HttpAnswer (*)(int status, const std::string& message);

// What went wrong, as an answer. A file that cannot be read is the server's fault, JSON that cannot be is the client's.
HttpAnswer failure_answer(std::exception_ptr failure, ErrorAnswer write, bool while_reading_request);

// One request for text on its way: waits for the model, makes tokens of the prompt, follows the engine, and writes the
// answer as it comes. Keeps itself alive until the answer is written. The engine's and the server's threads only hand
// over to the workers.
class TextRun : public std::enable_shared_from_this<TextRun> {
 public:
  struct To {
    std::shared_ptr<HttpReply> reply;
    HttpFields headers{};  // of every answer
    std::string client{};
    ErrorAnswer error = nullptr;
  };
  TextRun(Workers& workers, Pending& pending, TextRequest request, std::unique_ptr<TextFormat> format, To to,
          std::chrono::milliseconds max_wait, std::chrono::milliseconds queue_time)
      : pending_(pending),
        workers_(workers),
        request_(std::move(request)),
        format_(std::move(format)),
        to_(std::move(to)),
        max_wait_(max_wait),
        queue_time_(queue_time) {}

  void watch_client();  // once, before all else
  // The model is loaded, or could not be.
  void have_model(ModelHost::Lease model, std::exception_ptr failure);
  void answer_without_text(const std::string& reason);

 private:
  void begin();
  bool thinks() const;
  std::vector<std::int32_t> prompt_tokens(std::int64_t limit) const;
  std::vector<std::int32_t> gap_tokens(std::int64_t limit) const;
  std::vector<std::int32_t> chat_tokens(std::vector<models::ChatMessage> messages, std::int64_t limit) const;
  void leave() noexcept;
  void schedule();  // with the mutex held
  void pump();
  ScoredToken scored(std::int32_t id, float logprob) const;
  void show(const std::vector<AnswerPart>& parts);
  void begin_stream();
  void finish(const GenerationEnd& end);
  void fail(int status, const std::string& message);
  void answer(HttpAnswer answer);

  const Pending::One pending_;
  Workers& workers_;
  const TextRequest request_;
  const std::unique_ptr<TextFormat> format_;
  To to_;
  const std::chrono::milliseconds max_wait_, queue_time_;  // once the model is there
  const Clock::time_point asked_ = Clock::now();
  Clock::time_point loaded_ = asked_;
  ModelHost::Lease model_;

  // Of the worker that has this run
  std::optional<models::StreamDecoder> decoder_;
  StopStrings stops_;
  std::vector<std::int32_t> ids_;
  std::size_t prompt_size_ = 0;
  models::AnswerParts parts_;
  std::string_view call_mark_{};     // of calls of tools, where they are wanted
  TextAnswer answer_;                // where it is not streamed
  std::vector<ScoredToken> scored_;  // not written yet
  bool streaming_ = false;

  std::mutex mutex_;  // of what follows
  std::vector<std::int32_t> tokens_;
  std::deque<TokenLogprobs> logprobs_;  // of these and perhaps the next, where they are wanted
  std::optional<GenerationEnd> end_;
  bool scheduled_ = false, gone_ = false, cancelled_ = false;
  std::shared_ptr<Generation> generation_;
};

}  // namespace troika::serving
