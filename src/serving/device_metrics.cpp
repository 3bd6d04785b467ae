// SPDX-License-Identifier: Apache-2.0
#include "device_metrics.hpp"

#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
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

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
template <class T>
double known(const std::optional<T>& value) {
  return value ? static_cast<double>(*value) : unknown;
}
constexpr Value<GpuReading> of_gpus[] = {
    {"troika_gpu_up", "0 where the driver does not reach a GPU any more.", MetricType::Gauge,
     [](const GpuReading& g) { return g.lost ? 0.0 : 1.0; }},
    {"troika_gpu_slowed", "1 while heat or the power supply holds its clocks down.", MetricType::Gauge,
     [](const GpuReading& g) { return known(g.slowed); }},
    {"troika_gpu_utilisation_ratio", "Share of the latest moments in which a kernel ran.", MetricType::Gauge,
     [](const GpuReading& g) { return known(g.utilisation); }},
    {"troika_gpu_memory_used_bytes", "Memory in use, of all programs.", MetricType::Gauge,
     [](const GpuReading& g) { return known(g.memory_used); }},
    {"troika_gpu_memory_bytes", "Memory that a GPU has.", MetricType::Gauge,
     [](const GpuReading& g) { return known(g.memory); }},
    {"troika_gpu_temperature_celsius", "Temperature of the chip.", MetricType::Gauge,
     [](const GpuReading& g) { return known(g.celsius); }},
    {"troika_gpu_power_watts", "Power that it draws.", MetricType::Gauge,
     [](const GpuReading& g) { return known(g.watts); }},
    {"troika_gpu_clock_hertz", "Clock of its multiprocessors.", MetricType::Gauge,
     [](const GpuReading& g) { return known(g.clock); }},
    {"troika_gpu_memory_clock_hertz", "Clock of its memory.", MetricType::Gauge,
     [](const GpuReading& g) { return known(g.memory_clock); }},
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

std::vector<MetricFamily> gpu_families(const std::vector<GpuReading>& gpus) {
  std::vector<MetricFamily> families;
  for (const auto& value : of_gpus) {
    MetricFamily family{value.name, value.help, value.type, {}};
    for (const auto& gpu : gpus) {
      const double number = value.of(gpu);
      if (std::isnan(number)) continue;
      add(family, {{"gpu", std::to_string(gpu.index)}, {"name", gpu.name}, {"uuid", gpu.uuid}}, number);
    }
    if (!family.metric.empty()) families.push_back(std::move(family));
  }
  return families;
}

}  // namespace troika::serving
