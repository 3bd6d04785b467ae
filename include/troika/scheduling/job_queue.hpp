// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>

#include <troika/device/host/futex.hpp>
#include <troika/device/host/team.hpp>

namespace troika::detail {

// How long a waiting thread spins before it sleeps: at most about as long as waking it would take, and less while
// spinning does not pay, as on a busy machine. It never yields: there a yield gives away whole time slices, and a
// sleeper is woken sooner. Of one thread at a time.
class Patience {
 public:
  explicit Patience(int most = 0) : most_(most), pauses_(most) {}

  template <class Ready>
  bool until(Ready&& ready) {
    for (int i = 0; i < pauses_; ++i) {
      if (ready()) {
        pauses_ = std::min(most_, 2 * pauses_ + 1);
        return true;
      }
      pause_core();
    }
    pauses_ = std::max(pauses_ / 2, most_ / 32);
    return ready();
  }

 private:
  int most_, pauses_;
};

// What a lane runs. Intrusive, so that queueing allocates nothing; whoever makes a job keeps it alive until it ran.
struct Job {
  void (*run)(Job&) noexcept = nullptr;
  Job* next = nullptr;
};

// Jobs from any thread to one thread, in order of arrival. Pushing takes no lock, and wakes only a sleeping reader.
class JobQueue {
 public:
  JobQueue() = default;
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  void push(Job& job) noexcept {
    Job* head = head_.load(std::memory_order_relaxed);
    do {
      job.next = head == &asleep_ ? nullptr : head;
    } while (!head_.compare_exchange_weak(head, &job, std::memory_order_acq_rel, std::memory_order_relaxed));
    if (head == &asleep_) {
      wakes_.value().fetch_add(1);
      wakes_.wake_one();
    }
  }

  // All jobs there are, the first to come first, linked by `next`. Waits for one.
  Job* take(Patience& patience) noexcept {
    if (!patience.until([&] { return head_.load(std::memory_order_relaxed) != nullptr; })) sleep();
    Job* newest = head_.exchange(nullptr, std::memory_order_acquire);
    Job* jobs = nullptr;
    while (newest) {
      Job* older = newest->next;
      newest->next = jobs;
      jobs = newest;
      newest = older;
    }
    return jobs;
  }

 private:
  void sleep() noexcept {
    Job* none = nullptr;
    if (!head_.compare_exchange_strong(none, &asleep_, std::memory_order_acq_rel)) return;
    // `wakes_` is read before the head: a push in between changes it, and then wait() returns at once.
    for (;;) {
      const auto wakes = wakes_.value().load();
      if (head_.load(std::memory_order_acquire) != &asleep_) return;
      wakes_.sleep(wakes);
    }
  }

  alignas(64) std::atomic<Job*> head_{nullptr};  // newest job; null: none; &asleep_: none, and the reader sleeps
  Futex wakes_;
  Job asleep_;
};

}  // namespace troika::detail
