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

// Where threads sleep until something happens. std::atomic::wait has no timeout, hence the futex.
//
// The protocol: whoever makes something happen stores it (seq_cst), then calls ring(). Whoever waits passes a predicate
// that looks at it (seq_cst). Either the ringer sees the sleeper or the sleeper sees what happened.
class Bell {
 public:
  // Wakes everybody; costs one load when nobody sleeps.
  void ring() noexcept {
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
    word_.fetch_add(1, std::memory_order_seq_cst);
#if defined(__linux__)
    syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#endif
  }

  // Returns at the next ring, at the timeout, at once if `happened()`; and sometimes for no reason.
  template <class Happened>
  void sleep(Happened&& happened, std::chrono::nanoseconds timeout) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    [[maybe_unused]] const std::uint32_t seen = word_.load(std::memory_order_seq_cst);
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
  static_assert(sizeof(std::atomic<std::uint32_t>) == 4 && std::atomic<std::uint32_t>::is_always_lock_free);
  std::atomic<std::uint32_t> word_{0};
  std::atomic<std::uint32_t> sleepers_{0};
};

}  // namespace troika
