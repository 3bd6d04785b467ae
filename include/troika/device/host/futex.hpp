// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <climits>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace troika::detail {

// A number to sleep on. std::atomic::wait does the same, but libstdc++ has it yield several times before it sleeps, and
// on a busy machine each of them gives away a time slice.
class Futex {
 public:
  explicit Futex(std::uint32_t value = 0) : value_(value) {}

  std::atomic<std::uint32_t>& value() { return value_; }
  const std::atomic<std::uint32_t>& value() const { return value_; }

  // Until somebody wakes this thread; not at all if the value is not `old`. Returns without a reason sometimes.
  void sleep(std::uint32_t old) noexcept {
#if defined(__linux__)
    syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
#else
    value_.wait(old);
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
