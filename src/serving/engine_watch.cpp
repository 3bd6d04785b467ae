// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/engine_watch.hpp>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>

namespace troika::serving {

struct EngineWatch::State {
  using Listeners = std::vector<Listener>;
  struct Watched {
    std::string model;
    Engine* engine;
  };

  std::mutex mutex;
  std::shared_ptr<const Listeners> listeners = std::make_shared<Listeners>();
  std::vector<Watched> engines;
};

namespace {

template <class State>
class WatchedEngine final : public Engine {
 public:
  WatchedEngine(std::shared_ptr<State> state, std::string model, std::unique_ptr<Engine> engine)
      : state_(std::move(state)), model_(std::move(model)), engine_(std::move(engine)) {
    std::lock_guard lock(state_->mutex);
    listeners_ = state_->listeners;
    state_->engines.push_back({model_, engine_.get()});
  }
  ~WatchedEngine() override {
    {
      std::lock_guard lock(state_->mutex);
      std::erase_if(state_->engines, [&](const auto& watched) { return watched.engine == engine_.get(); });
    }
    tell(*listeners_, &EngineWatch::Listener::leaves, model_, *engine_);
  }

  std::shared_ptr<Generation> start(GenerationRequest request, GenerationEvents events) override {
    auto on_end = std::move(events.on_end);
    events.on_end = [listeners = listeners_, model = model_, on_end = std::move(on_end)](const GenerationEnd& end) {
      tell(*listeners, &EngineWatch::Listener::ended, model, end);
      if (on_end) on_end(end);
    };
    try {
      return engine_->start(std::move(request), std::move(events));
    } catch (const Error&) {
      tell(*listeners_, &EngineWatch::Listener::refused, model_);
      throw;
    }
  }
  std::int64_t context() const override { return engine_->context(); }
  EngineLoad load() const override { return engine_->load(); }
  std::vector<DeviceState> device_states() const override { return engine_->device_states(); }
  EnginePlace place() const override { return engine_->place(); }
  SelfCheck self_check() const override { return engine_->self_check(); }

 private:
  using Listeners = typename State::Listeners;

  template <class Member, class... Args>
  static void tell(const Listeners& listeners, Member member, const Args&... args) {
    for (const auto& listener : listeners) {
      if (listener.*member) (listener.*member)(args...);
    }
  }

  std::shared_ptr<State> state_;
  std::shared_ptr<const Listeners> listeners_;
  std::string model_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace

EngineWatch::EngineWatch() : state_(std::make_shared<State>()) {}
EngineWatch::~EngineWatch() = default;

void EngineWatch::listen(Listener listener) {
  std::lock_guard lock(state_->mutex);
  auto more = std::make_shared<State::Listeners>(*state_->listeners);
  more->push_back(std::move(listener));
  state_->listeners = std::move(more);
}

std::unique_ptr<Engine> EngineWatch::watch(const std::string& model, std::unique_ptr<Engine> engine) {
  return std::make_unique<WatchedEngine<State>>(state_, model, std::move(engine));
}

void EngineWatch::each(const std::function<void(const std::string& model, Engine& engine)>& f) const {
  std::lock_guard lock(state_->mutex);
  for (const auto& watched : state_->engines) f(watched.model, *watched.engine);
}

}  // namespace troika::serving
