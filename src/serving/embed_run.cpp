// SPDX-License-Identifier: Apache-2.0
#include "embed_run.hpp"

#include <algorithm>
#include <utility>

namespace troika::serving {

void EmbedRun::watch_client() {
  to_.reply->on_gone([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->give_up(self->to_.error(503, "the client left"));
  });
}

void EmbedRun::have_model(ModelHost::Lease model, std::exception_ptr failure) {
  workers_.post([self = shared_from_this(), model = std::move(model), failure]() mutable {
    if (failure) return self->answer(failure_answer(failure, self->to_.error, false));
    self->loaded_ = Clock::now();
    self->model_ = std::move(model);
    self->end_.vectors.resize(self->request_.inputs.size());
    std::lock_guard lock(self->mutex_);
    self->schedule();
  });
}

// Gives the texts that run back to the engine; the answer is written when they are.
void EmbedRun::give_up(HttpAnswer answer) {
  std::vector<std::shared_ptr<Generation>> running;
  {
    std::lock_guard lock(mutex_);
    if (!refusal_) refusal_ = std::move(answer);
    for (const auto& [text, generation] : running_)
      if (generation) running.push_back(generation);
  }
  for (const auto& generation : running) generation->cancel();
}

// False when there is none, or none may.
bool EmbedRun::start_next() {
  const auto text = next_;
  {
    std::lock_guard lock(mutex_);
    if (refusal_ || text == request_.inputs.size() || running_.size() == most_running) return false;
  }
  auto ids = tokens_of(request_.inputs[text]);
  {
    std::lock_guard lock(mutex_);
    running_.emplace(text, nullptr);
    end_.prompt_tokens += static_cast<std::int64_t>(ids.size());
  }
  ++next_;
  std::shared_ptr<Generation> generation;
  try {
    generation = model_->engine->start(
        {.prompt = std::move(ids), .client = to_.client, .deadline = Clock::now() + queue_time_},
        {[](std::int32_t) {}, [self = shared_from_this(), text](const GenerationEnd& end) { self->ended(text, end); }});
  } catch (...) {
    std::lock_guard lock(mutex_);
    running_.erase(text);
    throw;
  }
  bool given_up;
  {
    std::lock_guard lock(mutex_);
    if (const auto found = running_.find(text); found != running_.end()) found->second = generation;
    given_up = refusal_.has_value();
  }
  if (given_up) generation->cancel();
  return true;
}

std::vector<std::int32_t> EmbedRun::tokens_of(const EmbedRequest::Input& input) const {
  const auto context = model_->engine->context();
  const auto limit = static_cast<std::size_t>(request_.num_ctx > 0 ? std::min(request_.num_ctx, context) : context);
  const auto too_long = [&](std::size_t size, const char* unit) {
    return Refusal(400, "the input length exceeds the context length: " + std::to_string(size) + " " + unit +
                            " do not fit into " + std::to_string(limit) + " tokens");
  };
  std::vector<std::int32_t> ids;
  if (const auto* text = std::get_if<std::string>(&input)) {
    auto size = text->size();
    if (const auto most = model_->most_bytes(limit); size > most) {
      if (!request_.truncate) throw too_long(size, "bytes");
      for (size = most; size > 0 && (static_cast<unsigned char>((*text)[size]) & 0xc0) == 0x80;)
        --size;  // whole characters
    }
    ids = model_->tokenizer.encode(std::string_view(*text).substr(0, size));
  } else {
    ids = std::get<std::vector<std::int32_t>>(input);
  }
  if (ids.size() <= limit) return ids;
  if (!request_.truncate) throw too_long(ids.size(), "tokens");
  const auto last = ids.back();
  ids.resize(limit);
  if (last < model_->tokenizer.vocab_size() && model_->tokenizer.is_special(last)) ids.back() = last;  // [SEP]
  return ids;
}

void EmbedRun::ended(std::size_t text, const GenerationEnd& end) {
  switch (end.finish) {
    case Finish::stop:
    case Finish::length: break;
    case Finish::cancelled: give_up(to_.error(503, "the server stopped before the answer was complete")); break;
    case Finish::expired: give_up(to_.error(503, "the request waited too long; try again later")); break;
    case Finish::failed: give_up(to_.error(503, end.error)); break;
  }
  std::lock_guard lock(mutex_);
  end_.vectors[text] = end.embedding;
  running_.erase(text);
  schedule();
}

void EmbedRun::schedule() {
  changed_ = true;
  if (std::exchange(scheduled_, true)) return;
  workers_.post([self = shared_from_this()] { self->pump(); });
}

void EmbedRun::pump() {
  {
    std::lock_guard lock(mutex_);
    changed_ = false;
  }
  try {
    while (start_next()) {
    }
  } catch (...) {
    give_up(failure_answer(std::current_exception(), to_.error, true));
  }
  std::unique_lock lock(mutex_);
  const bool over = running_.empty() && (refusal_ || next_ == request_.inputs.size());
  if (!over) {
    scheduled_ = false;
    if (changed_) schedule();
    return;
  }
  lock.unlock();  // nothing else has this run any more, but for a client that leaves
  model_.reset();
  end_.total = Clock::now() - asked_;
  end_.load = loaded_ - asked_;
  answer(refusal_ ? *refusal_ : embed_answer(request_, std::move(end_)));
}

void EmbedRun::answer(HttpAnswer answer) {
  answer.headers.insert(answer.headers.end(), to_.headers.begin(), to_.headers.end());
  to_.reply->answer(std::move(answer));
}

}  // namespace troika::serving
