// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/readiness.hpp>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>

namespace troika::serving {
namespace {

enum class Proof : std::uint8_t { none, token, failure };

struct Trial {
  struct Model {
    Proof proof = Proof::none;
    std::uint64_t tokens_before = 0;
    std::shared_ptr<Generation> generation{};
    std::string why{};
  };
  Clock::time_point began{};
  std::map<std::string, Model> models{};
};

}  // namespace

struct Readiness::State {
  using Answers = std::vector<std::function<void(const Verdict&)>>;

  explicit State(Options o) : options(std::move(o)) {}

  // What a model showed; nothing where the trial is over, `of` another one or none. Any thread, without the mutex.
  void prove(const std::shared_ptr<Trial>& of, const std::string& model, Proof proof, const std::string& why = {}) {
    std::unique_lock lock(mutex);
    if (!of || trial != of) return;
    auto& entry = of->models[model];
    if (entry.proof == Proof::none) {
      entry.proof = proof;
      entry.why = why;
    }
    settle(lock, false);
  }

  // Tells all who wait once every model has shown something, or in any case when it is `late`.
  void settle(std::unique_lock<std::mutex>& lock, bool late) {
    if (!starting && trial) {
      const auto open =
          std::ranges::count_if(trial->models, [](const auto& m) { return m.second.proof == Proof::none; });
      if (open > 0 && !late) return;
      const auto over = std::exchange(trial, nullptr);
      const bool was_ready = verdict.ready;
      verdict = {.ready = true, .models = static_cast<int>(over->models.size()), .at = options.clock()};
      for (const auto& [model, entry] : over->models) {
        if (entry.proof == Proof::token) continue;
        verdict.ready = false;
        verdict.reason =
            entry.proof == Proof::failure ? "the devices of a model failed" : "a model made no token in time";
        if (was_ready)
          options.log.write(LogLevel::error,
                            "not ready: " + model + (entry.why.empty() ? " made no token in time" : ": " + entry.why));
      }
      const auto all = std::exchange(answers, {});
      const auto told = verdict;
      lock.unlock();
      for (const auto& [model, entry] : over->models) {
        if (entry.generation) entry.generation->cancel();
      }
      for (const auto& answer : all) answer(told);
    }
  }

  const Options options;
  std::mutex mutex;
  Verdict verdict{.ready = true};  // the latest
  std::shared_ptr<Trial> trial{};  // under way
  bool starting = false;           // not all engines of it have been asked yet
  Answers answers{};
};

Readiness::Readiness(const EngineWatch& watch, Options options)
    : watch_(watch), state_(std::make_shared<State>(std::move(options))) {}

Readiness::~Readiness() {
  std::lock_guard lock(state_->mutex);
  state_->trial.reset();
  state_->answers.clear();
}

void Readiness::ask(std::function<void(const Verdict&)> answer) {
  {
    std::unique_lock lock(state_->mutex);
    const auto& verdict = state_->verdict;
    // Where nothing is loaded, finding that out again costs nothing.
    const bool fresh = verdict.models > 0 && state_->options.clock() - verdict.at < state_->options.fresh;
    if (fresh && !state_->trial) {
      const auto told = verdict;
      lock.unlock();
      return answer(told);
    }
    state_->answers.push_back(std::move(answer));
    if (state_->trial) return;
    state_->trial = std::make_shared<Trial>(Trial{.began = state_->options.clock()});
    state_->starting = true;
  }
  begin_trial();
}

void Readiness::begin_trial() {
  const auto state = state_;
  std::shared_ptr<Trial> trial;
  {
    std::lock_guard lock(state->mutex);
    trial = state->trial;
  }
  watch_.each([&](const std::string& model, Engine& engine) {
    {
      std::lock_guard lock(state->mutex);
      trial->models[model].tokens_before = engine.load().tokens;
    }
    const auto ended = [state, of = std::weak_ptr(trial), model](const GenerationEnd& end) {
      if (end.finish == Finish::stop || end.finish == Finish::length || end.finish == Finish::cancelled)  // unloaded
        state->prove(of.lock(), model, Proof::token);
      else if (end.finish == Finish::failed)
        state->prove(of.lock(), model, Proof::failure, end.error);
    };
    try {
      auto generation = engine.start(
          {.prompt = {0}, .max_tokens = 1, .client = "readiness", .deadline = trial->began + state->options.patience},
          {.on_token = {}, .on_end = ended});
      std::lock_guard lock(state->mutex);
      trial->models[model].generation = std::move(generation);
    } catch (const Error& error) {
      // Where too many wait, tick() sees whether the engine draws tokens.
      if (error.fault() != Fault::out_of_memory) state->prove(trial, model, Proof::failure, error.what());
    }
  });
  std::unique_lock lock(state->mutex);
  state->starting = false;
  state->settle(lock, false);
}

void Readiness::tick() {
  std::shared_ptr<Trial> trial;
  {
    std::lock_guard lock(state_->mutex);
    trial = state_->trial;
  }
  if (!trial) return;
  std::map<std::string, std::uint64_t> tokens;
  watch_.each([&](const std::string& model, const Engine& engine) { tokens[model] = engine.load().tokens; });
  std::unique_lock lock(state_->mutex);
  if (state_->trial != trial) return;
  for (auto& [model, entry] : trial->models) {
    const auto now = tokens.find(model);
    if (entry.proof == Proof::none && (now == tokens.end() || now->second > entry.tokens_before))
      entry.proof = Proof::token;
  }
  state_->settle(lock, state_->options.clock() - trial->began >= state_->options.patience);
}

}  // namespace troika::serving
