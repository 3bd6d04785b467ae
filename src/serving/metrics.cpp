// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/metrics.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <troika/core/error.hpp>

namespace troika::serving {
namespace {

using Labels = prometheus::Labels;
using Buckets = prometheus::Histogram::BucketBoundaries;

double seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

const Buckets request_seconds{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
const Buckets token_seconds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5};
const Buckets token_counts{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536};

// A value of EngineLoad: what is so now, or what is counted since the engine began.
struct Now {
  const char *name, *help;
  double (*value)(const EngineLoad&);
};
constexpr Now gauges[] = {
    {"troika_engine_ready", "1 where steps can be taken.", [](const EngineLoad& l) { return l.ready ? 1.0 : 0.0; }},
    {"troika_devices", "Devices that share the model.", [](const EngineLoad& l) { return double(l.devices); }},
    {"troika_num_requests_running", "Requests that share steps.", [](const EngineLoad& l) { return double(l.running); }},
    {"troika_num_requests_waiting", "Requests that wait for memory or their turn.", [](const EngineLoad& l) { return double(l.waiting); }},
    {"troika_kv_cache_usage_perc", "Part of the pages for keys and values that is in use, from 0 to 1.",
     [](const EngineLoad& l) { return l.pages > 0 ? double(l.pages_used) / double(l.pages) : 0.0; }},
    {"troika_device_memory_bytes", "Memory that the devices hold.", [](const EngineLoad& l) { return double(l.memory_bytes); }},
};
constexpr Now counters[] = {
    {"troika_prompt_tokens_total", "Tokens of prompts that were read.", [](const EngineLoad& l) { return double(l.prompt_tokens); }},
    {"troika_prefix_cache_hits_total", "Tokens of prompts whose keys and values were there already.",
     [](const EngineLoad& l) { return double(l.reused_tokens); }},
    {"troika_generation_tokens_total", "Tokens that were drawn.", [](const EngineLoad& l) { return double(l.tokens); }},
    {"troika_steps_total", "Steps that were taken.", [](const EngineLoad& l) { return double(l.steps); }},
    {"troika_num_preemptions_total", "Requests that gave their memory back and were read again.",
     [](const EngineLoad& l) { return double(l.preemptions); }},
    {"troika_recoveries_total", "Failures of devices or steps after which the engine went on.",
     [](const EngineLoad& l) { return double(l.recoveries); }},
};

}  // namespace

struct Metrics::State {
  // What requests of one model are counted in.
  struct Model {
    prometheus::Family<prometheus::Counter>* finished;
    prometheus::Counter* refused;
    prometheus::Histogram *first_token, *token, *whole, *queue, *prompt_tokens, *generation_tokens;
    std::string name;

    void ended(const GenerationEnd& end) const {
      finished->Add({{"model_name", name}, {"finished_reason", std::string(to_string(end.finish))}}).Increment();
      queue->Observe(seconds(end.waited));
      whole->Observe(seconds(end.waited + end.prompt_time + end.token_time));
      prompt_tokens->Observe(double(end.prompt_tokens));
      generation_tokens->Observe(double(end.tokens));
      if (end.tokens > 0) first_token->Observe(seconds(end.waited + end.prompt_time));
      if (end.tokens > 1) token->Observe(seconds(end.token_time) / double(end.tokens - 1));
    }
  };

  State() {
    const auto gauge = [&](const Now& now) { gauge_families.push_back(&prometheus::BuildGauge().Name(now.name).Help(now.help).Register(registry)); };
    for (const auto& now : gauges) gauge(now);
    for (const auto& now : counters)
      counter_families.push_back(&prometheus::BuildCounter().Name(now.name).Help(now.help).Register(registry));
  }

  prometheus::Histogram& histogram(const char* name, const char* help, const Labels& labels, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
  }
  // The same object for the same name.
  Model model(const std::string& name) {
    const Labels labels{{"model_name", name}};
    return {&prometheus::BuildCounter().Name("troika_requests_total").Help("Requests that ended, by how.").Register(registry),
            &prometheus::BuildCounter().Name("troika_requests_refused_total").Help("Requests that were not taken.").Register(registry).Add(labels),
            &histogram("troika_time_to_first_token_seconds", "From the arrival of a request to its first token.", labels, request_seconds),
            &histogram("troika_time_per_output_token_seconds", "Mean time of a token after the first, of each request.", labels, token_seconds),
            &histogram("troika_e2e_request_latency_seconds", "From the arrival of a request to its end.", labels, request_seconds),
            &histogram("troika_request_queue_time_seconds", "Time that a request waited.", labels, request_seconds),
            &histogram("troika_request_prompt_tokens", "Tokens of prompts.", labels, token_counts),
            &histogram("troika_request_generation_tokens", "Tokens of answers.", labels, token_counts),
            name};
  }

  // Brings gauges and counters up to date. With the mutex held.
  void sample() {
    for (auto& watched : engines) {
      const auto load = watched.engine->load();
      const Labels labels{{"model_name", watched.model}};
      for (std::size_t i = 0; i < std::size(gauges); ++i) gauge_families[i]->Add(labels).Set(gauges[i].value(load));
      for (const auto& group : watched.engine->place().groups) {
        auto& placed = placements.Add({{"model_name", watched.model}, {"group", group.name}});
        placed.Set(group.ready ? 1 : 0);
        watched.placements.insert(&placed);
      }
      for (std::size_t i = 0; i < std::size(counters); ++i) {
        auto& counted = counter_families[i]->Add(labels);
        const double value = counters[i].value(load);
        counted.Increment(std::max(0.0, value - watched.last[i]));
        watched.last[i] = value;
      }
    }
  }
  void forget(const Engine* engine) {
    std::lock_guard lock(mutex);
    sample();
    const auto found = std::ranges::find(engines, engine, &Watched::engine);
    const auto model = found->model;
    for (auto* placed : found->placements) placements.Remove(placed);
    engines.erase(found);
    if (std::ranges::find(engines, model, &Watched::model) != engines.end()) return;
    for (auto* family : gauge_families) family->Remove(&family->Add({{"model_name", model}}));
  }

  struct Watched {
    const Engine* engine;
    std::string model;
    std::vector<double> last;  // of the counters
    std::set<prometheus::Gauge*> placements{};
  };
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
  prometheus::Family<prometheus::Gauge>& placements =
      prometheus::BuildGauge().Name("troika_model_placements").Help("1 where a group of devices can run the model, 0 where it failed.").Register(registry);
  std::vector<prometheus::Family<prometheus::Gauge>*> gauge_families;
  std::vector<prometheus::Family<prometheus::Counter>*> counter_families;
  std::mutex mutex;
  std::vector<Watched> engines;
};

namespace {

template <class State>
class WatchedEngine final : public Engine {
 public:
  WatchedEngine(std::shared_ptr<State> state, const std::string& model, std::unique_ptr<Engine> engine)
      : state_(std::move(state)), model_(state_->model(model)), engine_(std::move(engine)) {
    std::lock_guard lock(state_->mutex);
    state_->engines.push_back({engine_.get(), model, std::vector<double>(std::size(counters))});
  }
  ~WatchedEngine() override { state_->forget(engine_.get()); }

  std::shared_ptr<Generation> start(GenerationRequest request, GenerationEvents events) override {
    auto on_end = std::move(events.on_end);
    events.on_end = [state = state_, model = model_, on_end = std::move(on_end)](const GenerationEnd& end) {
      model.ended(end);
      if (on_end) on_end(end);
    };
    try {
      return engine_->start(std::move(request), std::move(events));
    } catch (const Error&) {
      model_.refused->Increment();
      throw;
    }
  }
  std::int64_t context() const override { return engine_->context(); }
  EngineLoad load() const override { return engine_->load(); }
  EnginePlace place() const override { return engine_->place(); }

 private:
  std::shared_ptr<State> state_;
  typename State::Model model_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace

Metrics::Metrics() : state_(std::make_shared<State>()) {}
Metrics::~Metrics() = default;

std::unique_ptr<Engine> Metrics::watch(const std::string& model, std::unique_ptr<Engine> engine) {
  return std::make_unique<WatchedEngine<State>>(state_, model, std::move(engine));
}

std::string Metrics::text() const {
  std::lock_guard lock(state_->mutex);
  state_->sample();
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

}  // namespace troika::serving
