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
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

namespace troika::detail {

// A number to sleep on. std::atomic::wait does the same, but it has no timeout, and libstdc++ has it yield several
// times before it sleeps: on a busy machine each of them gives away a time slice.
class Futex {
 public:
  explicit Futex(std::uint32_t value = 0) : value_(value) {}

  std::atomic<std::uint32_t>& value() { return value_; }
  const std::atomic<std::uint32_t>& value() const { return value_; }

  // Until somebody wakes this thread or the time is over; not at all if the value is not `old`. Returns without a
  // reason sometimes.
  void sleep(std::uint32_t old) noexcept {
#if defined(__linux__)
    syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
#else
    value_.wait(old);
#endif
  }
  void sleep([[maybe_unused]] std::uint32_t old, std::chrono::nanoseconds timeout) noexcept {
#if defined(__linux__)
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
    const timespec relative{static_cast<time_t>(seconds.count()), static_cast<long>((timeout - seconds).count())};
    syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, old, &relative, nullptr, 0);
#else
    std::this_thread::sleep_for(std::min(timeout, std::chrono::nanoseconds(std::chrono::microseconds(50))));
#endif
  }
  // Touches nothing of this object: it may be gone, if who was waiting saw the value in time.
  void wake_one() noexcept { wake(1); }
  void wake_all() noexcept { wake(INT_MAX); }

 private:
  static_assert(sizeof(std::atomic<std::uint32_t>) == 4 && std::atomic<std::uint32_t>::is_always_lock_free);

  void wake([[maybe_unused]] int threads) noexcept {
#if defined(__linux__)
    syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, threads, nullptr, nullptr, 0);
#else
    value_.notify_all();
#endif
  }

  std::atomic<std::uint32_t> value_;
};

}  // namespace troika::detail
