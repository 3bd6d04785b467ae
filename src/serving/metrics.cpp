// SPDX-License-Identifier: Apache-2.0
#include <troika/serving/metrics.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "device_metrics.hpp"

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
    {"troika_num_requests_running", "Requests that share steps.",
     [](const EngineLoad& l) { return double(l.running); }},
    {"troika_num_requests_waiting", "Requests that wait for memory or their turn.",
     [](const EngineLoad& l) { return double(l.waiting); }},
    {"troika_kv_cache_usage_perc", "Part of the pages for keys and values that is in use, from 0 to 1.",
     [](const EngineLoad& l) { return l.pages > 0 ? double(l.pages_used) / double(l.pages) : 0.0; }},
};
constexpr Now counters[] = {
    {"troika_prompt_tokens_total", "Tokens of prompts that were read.",
     [](const EngineLoad& l) { return double(l.prompt_tokens); }},
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
    const auto gauge = [&](const Now& now) {
      gauge_families.push_back(&prometheus::BuildGauge().Name(now.name).Help(now.help).Register(registry));
    };
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
    return {&prometheus::BuildCounter()
                 .Name("troika_requests_total")
                 .Help("Requests that ended, by how.")
                 .Register(registry),
            &prometheus::BuildCounter()
                 .Name("troika_requests_refused_total")
                 .Help("Requests that were not taken.")
                 .Register(registry)
                 .Add(labels),
            &histogram("troika_time_to_first_token_seconds", "From the arrival of a request to its first token.",
                       labels, request_seconds),
            &histogram("troika_time_per_output_token_seconds", "Mean time of a token after the first, of each request.",
                       labels, token_seconds),
            &histogram("troika_e2e_request_latency_seconds", "From the arrival of a request to its end.", labels,
                       request_seconds),
            &histogram("troika_request_queue_time_seconds", "Time that a request waited.", labels, request_seconds),
            &histogram("troika_request_prompt_tokens", "Tokens of prompts.", labels, token_counts),
            &histogram("troika_request_generation_tokens", "Tokens of answers.", labels, token_counts),
            name};
  }

  // Brings gauges and counters up to date. With the mutex held.
  void sample(const std::string& model, const Engine& engine) {
    const auto load = engine.load();
    const Labels labels{{"model_name", model}};
    auto& [name, last, shown] =
        engines.try_emplace(&engine, Sampled{model, std::vector<double>(std::size(counters))}).first->second;
    for (std::size_t i = 0; i < std::size(gauges); ++i) gauge_families[i]->Add(labels).Set(gauges[i].value(load));
    for (std::size_t i = 0; i < std::size(counters); ++i) {
      auto& counted = counter_families[i]->Add(labels);
      const double value = counters[i].value(load);
      counted.Increment(std::max(0.0, value - last[i]));
      last[i] = value;
    }
    for (const auto& group : engine.place().groups) {
      auto& placed = placements.Add({{"model_name", model}, {"group", group.name}});
      placed.Set(group.ready ? 1 : 0);
      shown.insert(&placed);
    }
  }
  void forget(const std::string& model, const Engine& engine) {
    std::lock_guard lock(mutex);
    sample(model, engine);
    for (auto* placed : engines[&engine].placements) placements.Remove(placed);
    engines.erase(&engine);
    if (std::ranges::any_of(engines, [&](const auto& other) { return other.second.model == model; })) return;
    for (auto* family : gauge_families) family->Remove(&family->Add({{"model_name", model}}));
  }

  struct Sampled {
    std::string model{};
    std::vector<double> last{};  // of the counters
    std::set<prometheus::Gauge*> placements{};
  };
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
  prometheus::Family<prometheus::Gauge>& placements =
      prometheus::BuildGauge()
          .Name("troika_model_placements")
          .Help("1 where a group of devices can run the model, 0 where it failed.")
          .Register(registry);
  std::vector<prometheus::Family<prometheus::Gauge>*> gauge_families;
  std::vector<prometheus::Family<prometheus::Counter>*> counter_families;
  const Gpus gpus;
  std::mutex mutex;
  std::map<const Engine*, Sampled> engines;  // as of the latest sample
};

Metrics::Metrics(EngineWatch& watch) : watch_(watch), state_(std::make_shared<State>()) {
  watch.listen(
      {.ended = [state = state_](const std::string& model,
                                 const GenerationEnd& end) { state->model(model).ended(end); },
       .refused = [state = state_](const std::string& model) { state->model(model).refused->Increment(); },
       .leaves = [state = state_](const std::string& model, const Engine& engine) { state->forget(model, engine); }});
}
Metrics::~Metrics() = default;

std::string Metrics::text() const {
  std::vector<DevicesOfModel> devices;
  std::lock_guard lock(state_->mutex);
  watch_.each([&](const std::string& model, const Engine& engine) {
    (void)state_->model(model);  // shows what is counted, too, while it is 0
    state_->sample(model, engine);
    devices.push_back({model, engine.device_states(), engine.self_check()});
  });
  auto families = state_->registry.Collect();
  std::ranges::move(device_families(devices), std::back_inserter(families));
  std::ranges::move(gpu_families(state_->gpus.read()), std::back_inserter(families));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace troika::serving
