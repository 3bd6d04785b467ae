// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include <troika/communication/transport.hpp>

namespace troika {

inline constexpr std::size_t operation_count = static_cast<std::size_t>(Operation::recv) + 1;

struct CollectiveTotals {
  std::uint64_t calls = 0, bytes = 0;
  double seconds = 0;
};

// A number that one thread adds to and any thread may read. The writer pays for a load and a store, for no fence and no
// lock.
class TotalOfOneWriter {
 public:
  void add(std::uint64_t more) {
    value_.store(value_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
  std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// What the collectives and messages of one rank did, by operation, and how long it waited in them for its peers. In
// cache lines of its own, so that ranks do not slow each other. See Communication::count.
class alignas(128) CommunicationCounters {
 public:
  void add(Operation operation, std::uint64_t bytes, std::chrono::nanoseconds time, std::chrono::nanoseconds waited) {
    auto& entry = entries_[static_cast<std::size_t>(operation)];
    entry.calls.add(1);
    entry.bytes.add(bytes);
    entry.nanoseconds.add(static_cast<std::uint64_t>(time.count()));
    waited_.add(static_cast<std::uint64_t>(waited.count()));
  }

  CollectiveTotals totals(Operation operation) const {
    const auto& entry = entries_[static_cast<std::size_t>(operation)];
    return {entry.calls.get(), entry.bytes.get(), 1e-9 * static_cast<double>(entry.nanoseconds.get())};
  }
  std::chrono::nanoseconds waited() const { return std::chrono::nanoseconds(waited_.get()); }

 private:
  struct Entry {
    TotalOfOneWriter calls, bytes, nanoseconds;
  };
  std::array<Entry, operation_count> entries_{};
  TotalOfOneWriter waited_;
};

}  // namespace troika
