// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/device/device.hpp>
#include <troika/serving/device_meter.hpp>
#include <troika/serving/engine.hpp>

namespace troika::serving {

// The devices of an engine: those that are left, and what all of them did. Not thread-safe.
template <class D>
class EngineDevices {
 public:
  using Meters = std::vector<std::shared_ptr<DeviceMeter>>;

  explicit EngineDevices(std::vector<D> devices) : devices_(std::move(devices)) {
    expects(!devices_.empty(), "an engine needs at least 1 device");
    for (const auto& device : devices_) meters_.push_back(std::make_shared<DeviceMeter>(device.name()));
    working_ = meters_;
  }

  const std::vector<D>& left() const { return devices_; }
  const Meters& meters() const { return working_; }  // of those that are left
  int size() const { return static_cast<int>(devices_.size()); }
  std::string names() const {
    std::string text;
    for (const auto& device : devices_) text += (text.empty() ? "" : "+") + device.name();
    return text;
  }
  std::int64_t memory_bytes() const {
    std::int64_t bytes = 0;
    for (const auto& device : devices_) bytes += static_cast<std::int64_t>(device.memory_reserved());
    return bytes;
  }
  std::int64_t gpu_bytes() const { return HasOwnMemory<D> ? memory_bytes() : 0; }
  // As a group of the server.
  EnginePlace::Group group(const EngineLoad& load) const {
    EnginePlace::Group group{.ready = load.ready, .queued = static_cast<int>(load.running + load.waiting)};
    for (const auto& device : devices_) group.devices.push_back(device.name());
    return group;
  }
  // Of all.
  std::vector<DeviceState> states() const {
    std::vector<DeviceState> states;
    std::size_t next = 0;  // of those that are left, which are in the same order
    for (const auto& meter : meters_) {
      const bool works = next < working_.size() && working_[next] == meter;
      states.push_back(meter->state(works ? static_cast<std::int64_t>(devices_[next].memory_reserved()) : 0));
      next += works ? 1 : 0;
    }
    return states;
  }

  // Leaves out what a run lost, and says so; `hung`: some of them were given up.
  std::string lose(std::span<const int> ranks, bool hung) {
    std::string lost;
    for (auto rank = ranks.rbegin(); rank != ranks.rend(); ++rank) {
      lost = devices_[static_cast<std::size_t>(*rank)].name() + (lost.empty() ? "" : ", ") + lost;
      devices_.erase(devices_.begin() + *rank);
      working_[static_cast<std::size_t>(*rank)]->lose();
      working_.erase(working_.begin() + *rank);
    }
    return lost + (hung ? " hung; it is left to itself, and what it holds with it; " : " failed and is left out; ") +
           std::to_string(devices_.size()) + " devices are left";
  }

 private:
  std::vector<D> devices_;
  Meters meters_, working_;  // of all, of those that are left
};

}  // namespace troika::serving
