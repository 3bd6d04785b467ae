// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include <prometheus/metric_family.h>

#include <troika/observe/gpus.hpp>
#include <troika/serving/engine.hpp>

namespace troika::serving {

struct DevicesOfModel {
  std::string model;
  std::vector<DeviceState> devices;
  SelfCheck check;
};

// What devices and their collectives did, by model and device, and their latest check. Operations that never ran are
// left out.
std::vector<prometheus::MetricFamily> device_families(const std::vector<DevicesOfModel>& models);

// What the GPUs of the machine say of themselves, whoever uses them. What they do not say is left out.
std::vector<prometheus::MetricFamily> gpu_families(const std::vector<GpuReading>& gpus);

}  // namespace troika::serving
