// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <troika/core/dtype.hpp>
#include <troika/device/tensor.hpp>

namespace troika {

// A tensor that every rank holds whole and that changes now and then: a version number and values that belong together.
// read() may be called on any thread at any time and never sees half of an update; see DataSync::update and verify.
template <Element T, Device D>
class Replicated {
 public:
  struct Snapshot {
    std::uint64_t version;
    Tensor<T, D> values;
  };

  Replicated(std::string name, Tensor<T, D> values)
      : name_(std::move(name)), current_(std::make_shared<const Snapshot>(Snapshot{1, std::move(values)})) {}

  const std::string& name() const { return name_; }
  // Stays valid for as long as the caller keeps it.
  std::shared_ptr<const Snapshot> read() const {
    std::lock_guard lock(mutex_);
    return current_;
  }
  // This rank alone; DataSync::update does it on all ranks together.
  void publish(Tensor<T, D> values, std::uint64_t version) {
    auto next = std::make_shared<const Snapshot>(Snapshot{version, std::move(values)});
    std::lock_guard lock(mutex_);
    current_.swap(next);
  }

 private:
  std::string name_;
  mutable std::mutex mutex_;  // held for one pointer copy
  std::shared_ptr<const Snapshot> current_;
};

}  // namespace troika
