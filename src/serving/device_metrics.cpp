// SPDX-License-Identifier: Apache-2.0
#include "device_metrics.hpp"

#include <chrono>
#include <utility>

namespace troika::serving {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Label = ClientMetric::Label;

void add(MetricFamily& family, std::vector<Label> labels, double value) {
  ClientMetric metric;
  metric.label = std::move(labels);
  (family.type == MetricType::Gauge ? metric.gauge.value : metric.counter.value) = value;
  family.metric.push_back(std::move(metric));
}

template <class Of>
struct Value {
  const char *name, *help;
  MetricType type;
  double (*of)(const Of&);
};
constexpr Value<DeviceState> of_devices[] = {
    {"troika_device_up", "0 where a device failed and was left out.", MetricType::Gauge,
     [](const DeviceState& d) { return d.lost ? 0.0 : 1.0; }},
    {"troika_device_memory_bytes", "Memory that a device holds.", MetricType::Gauge,
     [](const DeviceState& d) { return double(d.memory_bytes); }},
    {"troika_device_tasks_total", "Parts of steps that a device computed.", MetricType::Counter,
     [](const DeviceState& d) { return double(d.tasks); }},
    {"troika_device_busy_seconds_total", "Time at work; its rate is the utilisation of a device, from 0 to 1.",
     MetricType::Counter, [](const DeviceState& d) { return d.busy_seconds; }},
    {"troika_device_wait_seconds_total", "Time in which a device had work and waited for its peers.",
     MetricType::Counter, [](const DeviceState& d) { return d.waited_seconds; }},
    {"troika_device_faults_total", "Failures of a device.", MetricType::Counter,
     [](const DeviceState& d) { return double(d.faults); }},
};
constexpr Value<CollectiveTotals> of_collectives[] = {
    {"troika_collective_calls_total", "Collectives and messages that a device took part in.", MetricType::Counter,
     [](const CollectiveTotals& c) { return double(c.calls); }},
    {"troika_collective_bytes_total", "Bytes of their data.", MetricType::Counter,
     [](const CollectiveTotals& c) { return double(c.bytes); }},
    {"troika_collective_seconds_total", "Time that they took, waiting for peers included.", MetricType::Counter,
     [](const CollectiveTotals& c) { return c.seconds; }},
};

void add_checks(std::vector<MetricFamily>& families, const std::vector<DevicesOfModel>& models) {
  MetricFamily times{"troika_self_check_seconds",
                     "Time of something tiny: on a device (a kernel), from it to a peer (a message), over all (a sum).",
                     MetricType::Gauge,
                     {}};
  MetricFamily at{"troika_self_check_timestamp_seconds", "When that was measured.", MetricType::Gauge, {}};
  for (const auto& [model, devices, check] : models) {
    if (check.names.empty()) continue;
    const auto time = [&, &name = model](const char* what, const std::string& device, const std::string& peer,
                                         double seconds) {  // clang 14 captures no structured binding by itself
      add(times, {{"model_name", name}, {"check", what}, {"device", device}, {"peer", peer}}, seconds);
    };
    for (std::size_t i = 0; i < check.names.size(); ++i) time("device", check.names[i], "", check.kernels[i]);
    for (const auto& link : check.links) time("link", check.names[link.from], check.names[link.to], link.seconds);
    time("all_reduce", "", "", check.all_reduce_seconds);
    add(at, {{"model_name", model}}, std::chrono::duration<double>(check.at.time_since_epoch()).count());
  }
  for (auto* family : {&times, &at}) {
    if (!family->metric.empty()) families.push_back(std::move(*family));
  }
}

}  // namespace

std::vector<MetricFamily> device_families(const std::vector<DevicesOfModel>& models) {
  std::vector<MetricFamily> families;
  const auto each_device = [&](const auto& value, auto&& f) {
    MetricFamily family{value.name, value.help, value.type, {}};
    for (const auto& [model, devices, check] : models) {
      for (const auto& device : devices)
        f(family, device, std::vector<Label>{{"model_name", model}, {"device", device.name}});
    }
    if (!family.metric.empty()) families.push_back(std::move(family));
  };
  for (const auto& value : of_devices) {
    each_device(value, [&](auto& family, const auto& device, auto labels) {
      add(family, std::move(labels), value.of(device));
    });
  }
  for (const auto& value : of_collectives) {
    each_device(value, [&](auto& family, const auto& device, const auto& labels) {
      for (std::size_t i = 0; i < operation_count; ++i) {
        if (device.collectives[i].calls == 0) continue;
        auto named = labels;
        named.push_back({"operation", std::string(to_string(static_cast<Operation>(i)))});
        add(family, std::move(named), value.of(device.collectives[i]));
      }
    });
  }
  add_checks(families, models);
  return families;
}

}  // namespace troika::serving
