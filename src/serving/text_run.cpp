// SPDX-License-Identifier: Apache-2.0
#include "text_run.hpp"

#include <algorithm>
#include <utility>

#include "message.hpp"

namespace troika::serving {
namespace {

int status_of(Fault fault, bool while_reading_request) {
  switch (fault) {
    case Fault::invalid_argument:
    case Fault::unsupported: return 400;
    case Fault::bad_file: return while_reading_request ? 400 : 500;
    case Fault::out_of_memory:
    case Fault::peer_failed:
    case Fault::timeout:
    case Fault::mismatch:
    case Fault::device_failed: return 503;
  }
  return 500;
}

}  // namespace

HttpAnswer failure_answer(std::exception_ptr failure, ErrorAnswer write, bool while_reading_request) {
  try {
    std::rethrow_exception(std::move(failure));
  } catch (const Refusal& refusal) {
    return write(refusal.status, refusal.what());
  } catch (const Error& error) {
    return write(status_of(error.fault(), while_reading_request), message_of(error));
  } catch (const std::exception& error) {
    return write(500, error.what());
  }
}

void TextRun::watch_client() {
  to_.reply->on_gone([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->leave();
  });
}

void TextRun::leave() noexcept {
  std::shared_ptr<Generation> generation;
  {
    std::lock_guard lock(mutex_);
    gone_ = cancelled_ = true;
    generation = generation_;
  }
  if (generation) generation->cancel();
}

void TextRun::have_model(ModelHost::Lease model, std::exception_ptr failure) {
  workers_.post([self = shared_from_this(), model = std::move(model), failure]() mutable {
    if (failure) return self->answer(failure_answer(failure, self->to_.error, false));
    {
      std::lock_guard lock(self->mutex_);
      if (self->gone_) return;
    }
    self->loaded_ = Clock::now();
    self->model_ = std::move(model);
    if (self->request_.only_loads()) return self->answer_without_text("load");
    try {
      self->begin();
    } catch (...) {
      self->model_.reset();
      self->answer(failure_answer(std::current_exception(), self->to_.error, true));
    }
  });
}

void TextRun::answer_without_text(const std::string& reason) {
  model_.reset();
  answer({200, {{"Content-Type", "application/json; charset=utf-8"}}, format_->whole({}, {.reason = reason})});
}

void TextRun::begin() {
  const auto whole_context = model_->engine->context();
  const auto limit = request_.num_ctx > 0 ? std::min(request_.num_ctx, whole_context) : whole_context;
  if (request_.think.value_or(false) && !thinks()) {
    throw Refusal(400, request_.grammar ? "an answer of a format comes without thinking; leave think out"
                                        : "\"" + request_.model + "\" does not support thinking");
  }
  if (!request_.tools.empty() && !(model_->chat && model_->chat->takes_tools()))
    throw Refusal(400, "\"" + request_.model + "\" does not support tools");
  ids_ = prompt_tokens(limit);
  const auto calls = request_.tools.empty() ? models::ToolStyle::none : model_->chat->tool_style();
  parts_ = models::AnswerParts({.thinking = !request_.raw && request_.suffix.empty() && thinks(), .calls = calls});
  call_mark_ = models::call_mark(calls);
  if (ids_.empty()) throw Refusal(400, "the prompt has no tokens");
  prompt_size_ = ids_.size();
  decoder_.emplace(model_->tokenizer);
  stops_ = StopStrings(request_.stop);
  const auto room = limit - static_cast<std::int64_t>(ids_.size());
  GenerationRequest request{.prompt = ids_,
                            .max_tokens = request_.max_tokens > 0 ? std::min(request_.max_tokens, room) : room,
                            .sampling = request_.sampling,
                            .ends = request_.ignore_eos ? std::vector<std::int32_t>() : model_->ends,
                            .logprobs = request_.logprobs,
                            .client = to_.client,
                            .deadline = Clock::now() + queue_time_,
                            .max_wait = max_wait_};
  if (!request_.suffix.empty() && !request_.ignore_eos) {
    const auto& ends = model_->tokenizer.gap_tokens()->ends;
    request.ends.insert(request.ends.end(), ends.begin(), ends.end());
  }
  if (request_.grammar) request.constraint = {*request_.grammar, model_->token_bytes};
  const auto self = shared_from_this();
  GenerationEvents events{[self](std::int32_t token) {
                            std::lock_guard lock(self->mutex_);
                            self->tokens_.push_back(token);
                            self->schedule();
                          },
                          [self](const GenerationEnd& end) {
                            std::lock_guard lock(self->mutex_);
                            self->end_ = end;
                            self->schedule();
                          },
                          [self](const TokenLogprobs& logprobs) {
                            std::lock_guard lock(self->mutex_);
                            self->logprobs_.push_back(logprobs);
                          }};
  auto generation = model_->engine->start(std::move(request), std::move(events));
  bool cancelled;
  {
    std::lock_guard lock(mutex_);
    if (!end_) generation_ = generation;
    cancelled = cancelled_;
  }
  if (cancelled) generation->cancel();
}

// A model that can think does, unless it is told otherwise, or all of its answer is to be of a format.
bool TextRun::thinks() const {
  return model_->chat && model_->chat->thinks() && !request_.grammar && request_.think.value_or(true);
}

std::vector<std::int32_t> TextRun::prompt_tokens(std::int64_t limit) const {
  if (request_.chat) return chat_tokens(request_.messages, limit);
  if (!request_.suffix.empty()) return gap_tokens(limit);
  std::vector<std::int32_t> ids = request_.context;
  for (const auto id : ids) {
    if (id >= model_->tokenizer.vocab_size())
      throw Refusal(400, "tokens were given with " + std::to_string(id) + ", which this model does not know");
  }
  std::string prompt = request_.prompt;
  if (const auto most = model_->most_bytes(static_cast<std::size_t>(limit)); prompt.size() > most) {
    if (!request_.truncate)
      throw Refusal(400, "a prompt of " + std::to_string(prompt.size()) + " bytes does not fit into " +
                             std::to_string(limit) + " tokens");
    auto begin = prompt.size() - most;
    while (begin < prompt.size() && (static_cast<unsigned char>(prompt[begin]) & 0xc0) == 0x80)
      ++begin;  // whole characters
    prompt.erase(0, begin);
  }
  std::vector<std::int32_t> added;
  if (request_.raw || (!model_->chat && request_.system.empty())) {
    added = model_->tokenizer.encode(prompt, ids.empty());
  } else if (!model_->chat) {
    throw Refusal(400, "model '" + request_.model + "' has no place for a system message: " + model_->why_no_chat);
  } else {
    std::vector<models::ChatMessage> messages;
    if (!request_.system.empty()) messages.push_back({"system", request_.system});
    messages.push_back({"user", std::move(prompt)});
    added = model_->tokenizer.encode(model_->chat->render(messages, {.think = thinks()}), false);
    if (!ids.empty() && !added.empty() && added[0] == ids[0] && model_->tokenizer.is_special(ids[0]))
      added.erase(added.begin());
  }
  ids.insert(ids.end(), added.begin(), added.end());
  const auto size = static_cast<std::int64_t>(ids.size());
  if (size < limit) return ids;
  if (!request_.truncate) {
    throw Refusal(400, "the prompt has " + std::to_string(size) + " tokens; with its answer it may have " +
                           std::to_string(limit));
  }
  // The end of it is kept, and a quarter of the context for the answer.
  const auto kept = std::max<std::int64_t>(1, limit - std::max<std::int64_t>(1, limit / 4));
  const bool first = kept > 1 && model_->tokenizer.is_special(ids[0]);
  ids.erase(ids.begin() + first, ids.end() - (kept - first));
  return ids;
}

// The model's template and a system message have no place in it.
std::vector<std::int32_t> TextRun::gap_tokens(std::int64_t limit) const {
  const auto& tokenizer = model_->tokenizer;
  if (!tokenizer.gap_tokens()) throw Refusal(400, "\"" + request_.model + "\" does not support insert");
  const auto bytes = request_.prompt.size() + request_.suffix.size();
  if (bytes <= model_->most_bytes(static_cast<std::size_t>(limit))) {
    auto ids = tokenizer.encode_gap(request_.prompt, request_.suffix);
    if (static_cast<std::int64_t>(ids.size()) < limit) return ids;
  }
  throw Refusal(400, "prompt and suffix, " + std::to_string(bytes) + " bytes, do not fit into " +
                         std::to_string(limit) + " tokens with what is between them");
}

// Where they are too long, the oldest messages go, but not the system message nor the last.
std::vector<std::int32_t> TextRun::chat_tokens(std::vector<models::ChatMessage> messages, std::int64_t limit) const {
  if (!model_->chat) throw Refusal(400, "model '" + request_.model + "' cannot chat: " + model_->why_no_chat);
  while (true) {
    const auto text = model_->chat->render(messages, {.tools = request_.tools, .think = thinks()});
    auto size = static_cast<std::int64_t>(text.size() / model_->longest_token);
    if (text.size() <= model_->most_bytes(static_cast<std::size_t>(limit))) {
      auto ids = model_->tokenizer.encode(text, false);
      size = static_cast<std::int64_t>(ids.size());
      if (size < limit) return ids;
    }
    const auto first = messages[0].role == "system" ? std::size_t{1} : 0;
    const auto count = messages.size() - first;
    if (!request_.truncate || count <= 1) {
      throw Refusal(400, "the messages have at least " + std::to_string(size) +
                             " tokens; with the answer they may have " + std::to_string(limit));
    }
    const auto share = static_cast<std::size_t>(static_cast<double>(count) *
                                                (1 - static_cast<double>(limit) / static_cast<double>(size)));
    auto last = messages.begin() + static_cast<std::ptrdiff_t>(first + std::clamp<std::size_t>(share, 1, count - 1));
    while (last->role != "user" && last + 1 != messages.end()) ++last;  // a conversation begins with the user
    messages.erase(messages.begin() + static_cast<std::ptrdiff_t>(first), last);
  }
}

void TextRun::schedule() {
  if (scheduled_) return;
  scheduled_ = true;
  workers_.post([self = shared_from_this()] { self->pump(); });
}

void TextRun::pump() {
  std::vector<std::int32_t> tokens;
  std::vector<TokenLogprobs> logprobs;
  std::optional<GenerationEnd> end;
  {
    std::lock_guard lock(mutex_);
    std::swap(tokens, tokens_);
    for (; logprobs.size() < tokens.size() && !logprobs_.empty(); logprobs_.pop_front())
      logprobs.push_back(std::move(logprobs_.front()));
    end = end_;
    if (end) generation_.reset();
  }
  try {
    std::string text;
    for (std::size_t i = 0; i < tokens.size() && !stops_.found(); ++i) {
      const auto id = tokens[i];
      ids_.push_back(id);
      if (i < logprobs.size()) {
        scored_.push_back(scored(id, logprobs[i].drawn));
        for (const auto& other : logprobs[i].likeliest)
          scored_.back().likeliest.push_back(scored(other.id, other.logit));
      }
      // A special token is no text, but this one has to be seen
      const bool mark =
          !call_mark_.empty() && model_->tokenizer.is_special(id) && model_->tokenizer.token_of(id) == call_mark_;
      text += stops_.add(mark ? decoder_->finish() + std::string(call_mark_) : decoder_->add(id));
    }
    if (end && !stops_.found()) {
      text += stops_.add(decoder_->finish());
      text += stops_.finish();
    }
    show(parts_.add(text));
    if (end) show(parts_.finish());
    if (end) return finish(*end);
    if (stops_.found()) {
      std::shared_ptr<Generation> generation;
      {
        std::lock_guard lock(mutex_);
        cancelled_ = true;
        generation = generation_;
      }
      if (generation) generation->cancel();
    }
  } catch (const std::exception& error) {
    fail(500, error.what());
    leave();
  }
  std::lock_guard lock(mutex_);
  scheduled_ = false;
  if (!tokens_.empty() || end_) schedule();
}

ScoredToken TextRun::scored(std::int32_t id, float logprob) const {
  const auto& tokenizer = model_->tokenizer;
  return {tokenizer.is_special(id) ? tokenizer.token_of(id) : tokenizer.bytes_of(id), logprob};
}

void TextRun::show(const std::vector<AnswerPart>& parts) {
  for (const auto& part : parts) {
    if (request_.stream) {
      begin_stream();
      to_.reply->write(format_->piece(part, std::exchange(scored_, {})));
    } else if (part.kind == AnswerPart::Kind::call) {
      answer_.calls.push_back(part.call);
    } else {
      (part.kind == AnswerPart::Kind::thinking ? answer_.thinking : answer_.text) += part.text;
    }
  }
}

void TextRun::begin_stream() {
  if (std::exchange(streaming_, true)) return;
  HttpFields headers = to_.headers;
  headers.emplace_back("Content-Type", format_->content_type());
  headers.emplace_back("Cache-Control", "no-cache");
  to_.reply->begin(200, std::move(headers));
}

void TextRun::finish(const GenerationEnd& end) {
  model_.reset();
  switch (end.finish) {
    case Finish::stop:
    case Finish::length: break;
    case Finish::cancelled:
      if (!stops_.found()) return fail(503, "the server stopped before the answer was complete");
      break;
    case Finish::expired: return fail(503, "the request waited too long; try again later");
    case Finish::failed: return fail(503, end.error);
  }
  TextEnd text{.reason = std::string(stops_.found() ? "stop" : to_string(end.finish)),
               .prompt_tokens = end.prompt_tokens,
               .tokens = static_cast<std::int64_t>(ids_.size() - prompt_size_),
               .total = Clock::now() - asked_,
               .load = loaded_ - asked_,
               .prompt_time = end.prompt_time,
               .token_time = end.token_time,
               .context = {},
               .devices = end.devices};
  if (!request_.chat) text.context = ids_;
  (request_.stream ? text.scored : answer_.scored) = std::move(scored_);
  if (!request_.stream)
    return answer({200, {{"Content-Type", "application/json; charset=utf-8"}}, format_->whole(answer_, text)});
  begin_stream();
  to_.reply->write(format_->last(text));
  to_.reply->end();
}

void TextRun::fail(int status, const std::string& message) {
  if (!streaming_) return answer(to_.error(status, message));
  to_.reply->write(format_->broken(message));
  to_.reply->end();
}

void TextRun::answer(HttpAnswer answer) {
  answer.headers.insert(answer.headers.end(), to_.headers.begin(), to_.headers.end());
  to_.reply->answer(std::move(answer));
}

}  // namespace troika::serving
