// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <troika/communication/counters.hpp>

namespace troika::serving {

// One device of an engine and what it did since the engine began.
struct DeviceState {
  std::string name{};
  bool lost = false;  // it failed and was left out
  std::int64_t memory_bytes = 0;
  std::uint64_t tasks = 0;  // its parts of steps
  std::uint64_t faults = 0;
  double busy_seconds = 0, waited_seconds = 0;                  // of its tasks: at work, and waiting for its peers
  std::array<CollectiveTotals, operation_count> collectives{};  // by Operation, in its tasks
};

// Counts for one device. begin() and end() are for the rank that works on it; the rest is for any thread.
class DeviceMeter {
 public:
  explicit DeviceMeter(std::string name) : name_(std::move(name)) {}

  void begin() {
    begin_ = Clock::now();
    waited_before_ = collectives_.waited();
  }
  void end() {
    const auto time = Clock::now() - begin_;
    const auto waited = collectives_.waited() - waited_before_;
    tasks_.add(1);
    busy_.add(static_cast<std::uint64_t>((time - waited).count()));
    waited_.add(static_cast<std::uint64_t>(waited.count()));
  }
  CommunicationCounters& collectives() { return collectives_; }

  // The engine goes on without it.
  void lose() {
    ++faults_;
    lost_ = true;
  }

  DeviceState state(std::int64_t memory_bytes) const {
    DeviceState state{.name = name_,
                      .lost = lost_,
                      .memory_bytes = lost_ ? 0 : memory_bytes,
                      .tasks = tasks_.get(),
                      .faults = faults_,
                      .busy_seconds = 1e-9 * static_cast<double>(busy_.get()),
                      .waited_seconds = 1e-9 * static_cast<double>(waited_.get())};
    for (std::size_t i = 0; i < operation_count; ++i)
      state.collectives[i] = collectives_.totals(static_cast<Operation>(i));
    return state;
  }

 private:
  using Clock = std::chrono::steady_clock;

  const std::string name_;
  std::atomic<bool> lost_{false};
  std::atomic<std::uint64_t> faults_{0};
  CommunicationCounters collectives_;
  TotalOfOneWriter tasks_, busy_, waited_;  // nanoseconds
  Clock::time_point begin_{};
  std::chrono::nanoseconds waited_before_{};
};

}  // namespace troika::serving
