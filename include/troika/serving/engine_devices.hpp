// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/serving/run_culprits.hpp>

namespace troika::serving {

// The devices that an engine has left, and which of them failed in its latest run. watch() may be called by all ranks
// of a run at once; the rest is of the engine's thread while no rank runs.
template <class D>
class EngineDevices {
 public:
  explicit EngineDevices(std::vector<D> devices) : devices_(std::move(devices)) {
    expects(!devices_.empty(), "an engine needs at least 1 device");
  }

  const std::vector<D>& all() const { return devices_; }
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

  void begin_run() { culprits_.emplace(); }
  // f() of a rank; what it throws is noted, and goes on.
  template <class F>
  auto watch(int rank, F&& f) {
    try {
      return f();
    } catch (...) {
      culprits_->note(rank, std::current_exception());
      throw;
    }
  }
  const RunCulprits& culprits() const { return *culprits_; }  // once a run has begun
  // Leaves it out, and gives its name.
  std::string drop(int device) {
    auto name = devices_[static_cast<std::size_t>(device)].name();
    devices_.erase(devices_.begin() + device);
    return name;
  }

 private:
  std::vector<D> devices_;
  std::optional<RunCulprits> culprits_;
};

}  // namespace troika::serving
