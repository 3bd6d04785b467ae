// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>

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

  void begin_run() {
    thrower_ = suspect_ = -1;
    to_blame_ = false;
  }
  // f() of a rank; what it throws is noted, and goes on.
  template <class F>
  auto watch(int rank, F&& f) {
    try {
      return f();
    } catch (const Error& error) {
      // Who fails because of another says which; who is at fault itself has no rank in its error, or its own.
      if (error.rank() < 0 || error.rank() == rank) {
        if (note(thrower_, rank)) to_blame_ = error.fault() == Fault::invalid_argument;
      } else {
        note(suspect_, error.rank());
      }
      throw;
    } catch (...) {
      note(thrower_, rank);
      throw;
    }
  }
  // What ran was at fault, and no device.
  bool request_to_blame() const { return to_blame_; }
  // The device that failed, as an index, or -1. A rank that came too late need not know it: then others do.
  int failed() const { return to_blame_ ? -1 : thrower_ >= 0 ? thrower_.load() : suspect_.load(); }
  // Leaves it out, and gives its name.
  std::string drop(int device) {
    auto name = devices_[static_cast<std::size_t>(device)].name();
    devices_.erase(devices_.begin() + device);
    return name;
  }

 private:
  static bool note(std::atomic<int>& first, int rank) {
    int none = -1;
    return first.compare_exchange_strong(none, rank);
  }

  std::vector<D> devices_;
  std::atomic<int> thrower_{-1}, suspect_{-1};  // the first who threw, and whom others waited for
  std::atomic<bool> to_blame_{false};
};

}  // namespace troika::serving
