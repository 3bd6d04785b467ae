// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <troika/core/lane.hpp>

namespace troika {

enum class TaskOutcome {
  succeeded,
  failed,
  skipped,    // never tried: a task that it depends on failed, or the allocation could not place it
  cancelled,  // the scheduler was destroyed before it started
};

constexpr std::string_view to_string(TaskOutcome outcome) {
  switch (outcome) {
    case TaskOutcome::succeeded: return "succeeded";
    case TaskOutcome::failed: return "failed";
    case TaskOutcome::skipped: return "skipped";
    case TaskOutcome::cancelled: return "cancelled";
  }
  return "unknown outcome";
}

// One try of one task.
struct TaskRecord {
  std::uint64_t id = 0;  // in the order of submission, from 1
  std::string name{};
  int device = -1;  // -1: it never got one
  Lane lane = Lane::compute;
  int attempt = 1;
  double waited_seconds = 0;  // from submission to the start of this try
  double ran_seconds = 0;
  TaskOutcome outcome = TaskOutcome::succeeded;
  std::chrono::steady_clock::time_point finished{};
};

// The latest records, as many as fit; older ones are overwritten, so that a server does not grow. Thread-safe.
class RecordRing {
 public:
  explicit RecordRing(std::size_t capacity) : capacity_(capacity) {}

  // Fills the next record in place, which keeps the memory of its name. `fill` must not throw half-way.
  template <class Fill>
  void add(Fill&& fill) {
    if (capacity_ == 0) return;
    std::lock_guard lock(mutex_);
    if (records_.size() < capacity_)
      records_.emplace_back();
    else if (next_ == capacity_)
      next_ = 0;
    fill(records_[next_]);
    ++next_;
  }

  void append_to(std::vector<TaskRecord>& out) const {
    std::lock_guard lock(mutex_);
    out.insert(out.end(), records_.begin(), records_.end());
  }

 private:
  std::size_t capacity_;
  mutable std::mutex mutex_;
  std::vector<TaskRecord> records_;
  std::size_t next_ = 0;
};

}  // namespace troika
