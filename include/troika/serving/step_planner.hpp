// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/serving/backlog.hpp>
#include <troika/serving/engine.hpp>
#include <troika/serving/page_pool.hpp>

namespace troika::serving {

struct PlannerOptions {
  std::int64_t pages = 0;           // of the memory for keys and values; at least those of one whole context
  std::int64_t context = 0;         // tokens that a text may have
  std::int64_t step_tokens = 512;   // tokens of one step at most, while prompts are read and nothing else runs
  std::int64_t mixed_tokens = 128;  // the same while answers are under way, who wait for their next token meanwhile
  std::int64_t most_running = 64;   // requests that share steps
  std::string devices{};            // what takes the steps, for GenerationEnd
};

// A request on its way through the engine. Only the planner changes it, between steps; `cancelled` may be set by
// anybody.
struct Sequence final : Generation {
  Sequence(GenerationRequest r, GenerationEvents e)
      : request(std::move(r)), events(std::move(e)), tokens(request.prompt), arrived(Clock::now()) {
    tokens.insert(tokens.end(), request.drawn.begin(), request.drawn.end());
    if (!request.constraint) return;
    grammar.emplace(request.constraint->grammar);
    for (const auto token : request.drawn) {
      expects(allows(token), [&] { return "the answer so far is not of the grammar: token " + std::to_string(token); });
    }
  }
  // Moves on in the grammar, if there is one. False where the token cannot come.
  bool allows(std::int32_t token) {
    if (!grammar) return true;
    const auto& spelled = *request.constraint->tokens;
    return token >= 0 && token < spelled.size() && !spelled[token].empty() && grammar->advance(spelled[token]);
  }
  void cancel() noexcept override { cancelled.store(true, std::memory_order_relaxed); }

  std::int64_t drawn() const { return static_cast<std::int64_t>(tokens.size() - request.prompt.size()); }
  std::int64_t unread() const { return static_cast<std::int64_t>(tokens.size()) - cached; }

  const GenerationRequest request;
  const GenerationEvents events;
  Backlog::Place place{};                         // while it waits to begin
  std::optional<models::GrammarState> grammar{};  // where the answer is in it
  int failures = 0;                               // of steps that it was part of
  std::vector<std::int32_t> tokens;               // the prompt and what was drawn
  std::int64_t cached = 0,
               reused = 0;  // tokens whose keys and values are in the pages; those of the prompt that were found there
  std::vector<std::int32_t> pages;
  std::atomic<bool> cancelled{false};
  const Clock::time_point arrived;
  Clock::time_point began{}, answered{};  // admitted for the first time; the first token was drawn
};

// What a sequence gives the next step: `count` tokens from sequence->cached on. One token is drawn if `draws`.
struct Piece {
  std::shared_ptr<Sequence> sequence;
  std::int64_t count = 0;
  bool draws = false;
};

// Decides what each step computes: continuous batching (Orca, OSDI 2022) with prompts read in pieces beside answers
// (Sarathi, arXiv 2308.16369), over pages. Clients take turns in the queue. A request is admitted when its text fits
// the free pages; when pages run out later, the one that was admitted last gives its pages back and waits, first in
// line, to be read again. Calls the events of requests. Not thread-safe.
class StepPlanner {
 public:
  static constexpr int most_failures = 2;

  explicit StepPlanner(PlannerOptions options) : options_(options), pool_(options.pages) {
    expects(options.pages * kv_page >= options.context, [&] {
      return std::to_string(options.pages) + " pages of " + std::to_string(kv_page) +
             " tokens do not hold a context of " + std::to_string(options.context);
    });
    expects(options.context >= 2 && options.mixed_tokens >= 1 && options.step_tokens >= options.mixed_tokens &&
                options.most_running >= 1 && options.mixed_tokens >= options.most_running,
            "a planner takes a context of at least 2 tokens, at least 1 running request, and steps with a token for "
            "each that "
            "runs: most_running <= mixed_tokens <= step_tokens");
  }

  void add(std::shared_ptr<Sequence> sequence) {
    auto& queue = queues_[sequence->request.client];
    if (queue.empty()) turns_.push_back(sequence->request.client);
    queue.push_back(std::move(sequence));
    ++queued_;
  }

  // The pieces of the next step; none when there is nothing to do. They stay valid until finish().
  std::span<const Piece> plan(Clock::time_point now) {
    end_what_should(now);
    step_.clear();
    const bool answers = std::ranges::any_of(running_, [](const auto& s) { return s->unread() == 1; });
    std::int64_t budget = answers ? options_.mixed_tokens : options_.step_tokens;
    // Answers first, each its one token; then prompts, in the order of admission.
    for (const bool prompts : {false, true}) {
      for (std::size_t i = 0; i < running_.size() && budget > 0; ++i) {
        const auto sequence = running_[i];
        if ((sequence->unread() > 1) != prompts) continue;
        const auto count = std::min(sequence->unread(), budget);
        if (!hold(*sequence, sequence->cached + count)) {
          --i;  // it went back to the queue, as the last that was admitted
          continue;
        }
        budget -= count;
        step_.push_back({sequence, count, count == sequence->unread()});
      }
    }
    while (budget > 0 && static_cast<std::int64_t>(running_.size()) < options_.most_running) {
      const auto sequence = admit(now);
      if (!sequence) break;
      const auto count = std::min(sequence->unread(), budget);
      (void)hold(*sequence, sequence->cached + count);  // admit() saw that there is room
      budget -= count;
      step_.push_back({sequence, count, count == sequence->unread()});
    }
    backlog_.planned(now);
    // Who was planned before may have lost its pages to one planned after.
    std::erase_if(step_, [](const Piece& piece) { return piece.sequence->pages.empty(); });
    return step_;
  }

  // The step was taken; `drawn` are the tokens of the pieces that draw, in their order, `logprobs` of those that ask.
  void finish(std::span<const std::int32_t> drawn, Clock::time_point now,
              std::span<const TokenLogprobs> logprobs = {}) {
    std::size_t next = 0, told = 0;
    for (const auto& [sequence, count, draws] : step_) {
      const auto first = sequence->cached / kv_page;
      sequence->cached += count;
      read_ += static_cast<std::uint64_t>(sequence->answered == Clock::time_point{} ? count : 0);
      for (auto i = first; i < sequence->cached / kv_page; ++i) remember(*sequence, static_cast<std::size_t>(i));
      if (!draws) continue;
      const bool tells = sequence->request.logprobs.has_value();
      take(sequence, drawn[next++], tells ? &logprobs[told++] : nullptr, now);
    }
    step_.clear();
  }

  // The step failed, and the memory was lost: nothing is in the pages. What ran is read again, before what waits; what
  // was part of `most_failures` failed steps, or of one if it is `to_blame`, ends with the error instead. `devices` go
  // on.
  void restart(const std::string& error, bool to_blame, const std::string& devices, Clock::time_point now) {
    for (const auto& [sequence, count, draws] : step_) {
      if (++sequence->failures >= most_failures || to_blame) stop_running(sequence, Finish::failed, now, error);
    }
    step_.clear();
    while (!running_.empty()) send_back();
    pool_ = PagePool(options_.pages);
    options_.devices = devices;
  }
  // Ends everything.
  void end_all(Finish finish, const std::string& error, Clock::time_point now) {
    step_.clear();
    for (auto& sequence : std::exchange(running_, {})) end(*sequence, finish, error, now);
    for (auto& sequence : std::exchange(returned_, {})) end(*sequence, finish, error, now);
    for (auto& [client, queue] : std::exchange(queues_, {})) {
      for (auto& sequence : queue) end(*sequence, finish, error, now);
    }
    turns_.clear();
    queued_ = 0;
  }

  std::int64_t running() const { return static_cast<std::int64_t>(running_.size()); }
  std::int64_t waiting() const { return queued_ + static_cast<std::int64_t>(returned_.size()); }
  const PagePool& pool() const { return pool_; }
  Backlog& backlog() { return backlog_; }  // may be used from any thread
  std::uint64_t prompt_tokens() const { return read_; }
  std::uint64_t reused_tokens() const { return reused_; }
  std::uint64_t drawn_tokens() const { return drawn_; }
  std::uint64_t preemptions() const { return preemptions_; }

 private:
  static std::int64_t pages_for(std::int64_t tokens) { return (tokens + kv_page - 1) / kv_page; }

  // Gives a running sequence the pages for so many tokens. False when it had to go back to the queue itself.
  bool hold(Sequence& sequence, std::int64_t tokens) {
    while (static_cast<std::int64_t>(sequence.pages.size()) < pages_for(tokens)) {
      if (const auto page = pool_.take()) {
        sequence.pages.push_back(*page);
      } else {
        ++preemptions_;
        const bool itself = running_.back().get() == &sequence;
        send_back();
        if (itself) return false;
      }
    }
    return true;
  }

  // The one that was admitted last waits again, first in line.
  void send_back() {
    auto sequence = std::move(running_.back());
    running_.pop_back();
    pool_.give_back(sequence->pages);
    sequence->pages.clear();
    sequence->cached = 0;
    returned_.push_front(std::move(sequence));
  }

  // The next in line, if there is room for its text and a page more for each that runs; it runs now. Who is first in
  // line is not overtaken by smaller ones.
  std::shared_ptr<Sequence> admit(Clock::time_point now) {
    if (returned_.empty() && turns_.empty()) return nullptr;
    auto& queue = returned_.empty() ? queues_.at(turns_.front()) : returned_;
    auto& sequence = *queue.front();
    sequence.pages = pool_.find(sequence.tokens);
    const auto needed =
        pages_for(static_cast<std::int64_t>(sequence.tokens.size())) - static_cast<std::int64_t>(sequence.pages.size());
    if (needed + running() > pool_.available()) {
      pool_.give_back(sequence.pages);
      sequence.pages.clear();
      return nullptr;
    }
    sequence.cached = static_cast<std::int64_t>(sequence.pages.size()) * kv_page;
    if (sequence.began == Clock::time_point{}) {
      sequence.began = now;
      sequence.place.begin();
      sequence.reused = sequence.cached;
      reused_ += static_cast<std::uint64_t>(sequence.cached);
    }
    running_.push_back(std::move(queue.front()));
    queue.pop_front();
    if (&queue != &returned_) {
      --queued_;
      auto client = std::move(turns_.front());
      turns_.pop_front();
      if (queue.empty())
        queues_.erase(client);
      else
        turns_.push_back(std::move(client));
    }
    return running_.back();
  }

  void remember(Sequence& sequence, std::size_t i) {
    const auto before = i == 0 ? PagePool::none : sequence.pages[i - 1];
    sequence.pages[i] =
        pool_.remember(before, std::span(sequence.tokens).subspan(i * kv_page, kv_page), sequence.pages[i]);
  }

  // A token was drawn.
  void take(const std::shared_ptr<Sequence>& sequence, std::int32_t token, const TokenLogprobs* logprobs,
            Clock::time_point now) {
    auto& s = *sequence;
    if (s.answered == Clock::time_point{}) s.answered = now;
    if (std::ranges::find(s.request.ends, token) != s.request.ends.end())
      return stop_running(sequence, Finish::stop, now);
    if (!s.allows(token))
      return stop_running(sequence, Finish::failed, now,
                          "no token of this model goes on with the answer as it was asked for");
    s.tokens.push_back(token);
    ++drawn_;
    try {
      if (logprobs && s.events.on_logprobs) s.events.on_logprobs(*logprobs);
      if (s.events.on_token) s.events.on_token(token);
    } catch (const std::exception& error) {
      return stop_running(sequence, Finish::failed, now, error.what());
    }
    if (s.grammar && s.grammar->complete()) return stop_running(sequence, Finish::stop, now);
    const auto length = static_cast<std::int64_t>(s.tokens.size());
    if ((s.request.max_tokens > 0 && s.drawn() >= s.request.max_tokens) || length >= options_.context) {
      stop_running(sequence, Finish::length, now);
    }
  }

  void stop_running(std::shared_ptr<Sequence> sequence, Finish finish, Clock::time_point now,
                    const std::string& error = {}) {
    std::erase(running_, sequence);
    pool_.give_back(sequence->pages);
    sequence->pages.clear();
    end(*sequence, finish, error, now);
  }

  void end_what_should(Clock::time_point now) {
    for (std::size_t i = running_.size(); i > 0; --i) {
      if (running_[i - 1]->cancelled.load(std::memory_order_relaxed))
        stop_running(running_[i - 1], Finish::cancelled, now);
    }
    const auto gone = [&](const std::shared_ptr<Sequence>& sequence) {
      const bool cancelled = sequence->cancelled.load(std::memory_order_relaxed);
      const bool expired = sequence->began == Clock::time_point{} && now >= sequence->request.deadline;
      if (cancelled || expired) end(*sequence, cancelled ? Finish::cancelled : Finish::expired, {}, now);
      return cancelled || expired;
    };
    std::erase_if(returned_, gone);
    for (auto& [client, queue] : queues_) queued_ -= static_cast<std::int64_t>(std::erase_if(queue, gone));
    std::erase_if(turns_, [&](const std::string& client) {
      const auto found = queues_.find(client);
      if (!found->second.empty()) return false;
      queues_.erase(found);
      return true;
    });
  }

  void end(Sequence& s, Finish finish, const std::string& error, Clock::time_point now) const {
    s.place.give_up();
    const auto began = s.began == Clock::time_point{} ? now : s.began;
    const auto answered = s.answered == Clock::time_point{} ? now : s.answered;
    try {
      if (s.events.on_end) {
        s.events.on_end({.finish = finish,
                         .error = error,
                         .prompt_tokens = static_cast<std::int64_t>(s.request.prompt.size()),
                         .reused_tokens = s.reused,
                         .tokens = s.drawn(),
                         .devices = options_.devices,
                         .waited = began - s.arrived,
                         .prompt_time = answered - began,
                         .token_time = now - answered});
      }
    } catch (const std::exception&) {  // nobody is left to tell
    }
  }

  PlannerOptions options_;
  PagePool pool_;
  Backlog backlog_;
  std::vector<std::shared_ptr<Sequence>> running_;                       // in the order of admission
  std::deque<std::shared_ptr<Sequence>> returned_;                       // ran before; first in line
  std::map<std::string, std::deque<std::shared_ptr<Sequence>>> queues_;  // by client, none of them empty
  std::deque<std::string> turns_;                                        // clients that wait, each once
  std::int64_t queued_ = 0;                                              // in all queues
  std::vector<Piece> step_;
  std::uint64_t read_ = 0, reused_ = 0, drawn_ = 0, preemptions_ = 0;
};

}  // namespace troika::serving
