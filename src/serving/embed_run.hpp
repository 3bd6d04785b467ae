// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include <troika/serving/model_host.hpp>

#include "embed_request.hpp"
#include "text_run.hpp"
#include "workers.hpp"

namespace troika::serving {

// One request for embeddings on its way: waits for the model, hands its texts to the engine, a few dozen at a time so
// that others get in between, and answers when all have come. Keeps itself alive until then.
class EmbedRun : public std::enable_shared_from_this<EmbedRun> {
 public:
  EmbedRun(Workers& workers, Pending& pending, EmbedRequest request, TextRun::To to,
           std::chrono::milliseconds queue_time)
      : pending_(pending),
        workers_(workers),
        request_(std::move(request)),
        to_(std::move(to)),
        queue_time_(queue_time) {}

  void watch_client();  // once, before all else
  // The model is loaded, or could not be.
  void have_model(ModelHost::Lease model, std::exception_ptr failure);

 private:
  static constexpr std::size_t most_running = 64;

  bool start_next();
  std::vector<std::int32_t> tokens_of(const EmbedRequest::Input& input) const;
  void ended(std::size_t text, const GenerationEnd& end);
  void give_up(HttpAnswer answer);
  void schedule();  // with the mutex held
  void pump();
  void answer(HttpAnswer answer);

  const Pending::One pending_;
  Workers& workers_;
  const EmbedRequest request_;
  TextRun::To to_;
  const std::chrono::milliseconds queue_time_;
  const Clock::time_point asked_ = Clock::now();
  Clock::time_point loaded_ = asked_;
  ModelHost::Lease model_;
  std::size_t next_ = 0;  // text that is not started; of the worker that has this run

  std::mutex mutex_;  // of what follows
  EmbedEnd end_;
  std::map<std::size_t, std::shared_ptr<Generation>> running_;  // by text; null before the engine has said which
  std::optional<HttpAnswer> refusal_;                           // instead of embeddings
  bool scheduled_ = false, changed_ = false;
};

}  // namespace troika::serving
