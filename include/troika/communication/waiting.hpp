// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include <troika/device/host/futex.hpp>

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

// Where threads sleep until something happens.
//
// Whoever makes something happen stores it, passes a full fence, and rings. Whoever waits passes a predicate that looks
// for it. Either the ringer sees the sleeper, or the sleeper sees what happened.
class Bell {
 public:
  // Wakes all who sleep; costs one load when nobody does.
  void ring() noexcept {
    if (sleepers_.load(std::memory_order_relaxed) == 0) return;
    word_.value().fetch_add(1, std::memory_order_seq_cst);
    word_.wake_all();
  }
  // The same for something that several threads announce: only the first of them wakes the sleepers. `number` differs
  // from the last one.
  void ring(std::uint64_t number) noexcept {
    if (sleepers_.load(std::memory_order_relaxed) == 0) return;
    const auto word = static_cast<std::uint32_t>(number);
    if (word_.value().exchange(word, std::memory_order_seq_cst) != word) word_.wake_all();
  }

  // Returns at the next ring, at the timeout, at once if `happened()`; and sometimes for no reason.
  template <class Happened>
  void sleep(Happened&& happened, std::chrono::nanoseconds timeout) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    const std::uint32_t seen = word_.value().load(std::memory_order_seq_cst);
    full_fence();
    if (!happened()) word_.sleep(seen, timeout);
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }

 private:
  detail::Futex word_;
  std::atomic<std::uint32_t> sleepers_{0};
};

}  // namespace troika
