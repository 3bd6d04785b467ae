// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>
#include <thread>

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

namespace troika {

// Orders the stores before it with the loads after it.
inline void full_fence() noexcept {
#if defined(__SANITIZE_THREAD__)
  static std::atomic<int> somewhere{0};  // the sanitizer knows no fences, but needs none to see who waited for whom
  somewhere.fetch_add(1, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// Where threads sleep until something happens. std::atomic::wait has no timeout, hence the futex.
//
// Whoever makes something happen stores it, passes a full fence, and rings. Whoever waits passes a predicate that looks
// for it. Either the ringer sees the sleeper, or the sleeper sees what happened.
class Bell {
 public:
  // Wakes all who sleep; costs one load when nobody does.
  void ring() noexcept {
    if (sleepers_.load(std::memory_order_relaxed) == 0) return;
    word_.fetch_add(1, std::memory_order_seq_cst);
    wake();
  }
  // The same for something that several threads announce: only the first of them wakes the sleepers. `number` differs
  // from the last one.
  void ring(std::uint64_t number) noexcept {
    if (sleepers_.load(std::memory_order_relaxed) == 0) return;
    const auto word = static_cast<std::uint32_t>(number);
    if (word_.exchange(word, std::memory_order_seq_cst) != word) wake();
  }

  // Returns at the next ring, at the timeout, at once if `happened()`; and sometimes for no reason.
  template <class Happened>
  void sleep(Happened&& happened, std::chrono::nanoseconds timeout) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    [[maybe_unused]] const std::uint32_t seen = word_.load(std::memory_order_seq_cst);
    full_fence();
    if (!happened()) {
#if defined(__linux__)
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
      const timespec relative{static_cast<time_t>(seconds.count()), static_cast<long>((timeout - seconds).count())};
      syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, seen, &relative, nullptr, 0);
#else
      std::this_thread::sleep_for(std::min(timeout, std::chrono::nanoseconds(std::chrono::microseconds(50))));
#endif
    }
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }

 private:
  void wake() noexcept {
#if defined(__linux__)
    syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#endif
  }

  static_assert(sizeof(std::atomic<std::uint32_t>) == 4 && std::atomic<std::uint32_t>::is_always_lock_free);
  std::atomic<std::uint32_t> word_{0};
  std::atomic<std::uint32_t> sleepers_{0};
};

}  // namespace troika
