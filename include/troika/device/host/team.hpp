// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/device/host/futex.hpp>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace troika {

// Tells the core that this is a waiting loop.
inline void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Pins the calling thread; false where the system refuses or knows no such thing.
inline bool pin_this_thread([[maybe_unused]] int core) {
#if defined(__linux__)
  if (core < 0 || core >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  return pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0;
#else
  return false;
#endif
}

// The threads of one device: one per core, the caller being the first. They start with the first run, wait between runs
// by spinning for some microseconds and then asleep. One caller at a time, and no run inside a run.
class Team {
 public:
  explicit Team(std::vector<int> cores = {})
      : cores_(std::move(cores)), size_(std::max(1, static_cast<int>(cores_.size()))), refused_(cores_.size()) {}
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() {
    stop_.store(true, std::memory_order_relaxed);
    begin_round();
    for (auto& thread : threads_) thread.join();
  }

  int size() const { return size_; }
  const std::vector<int>& cores() const { return cores_; }

  // Puts the calling thread on the first core of this team. False where there is nothing to pin to or the system
  // refuses.
  bool pin_caller() { return !cores_.empty() && pin(0); }

  // The cores that the system refused to the threads that started so far, in the order of the members. Thread-safe.
  std::vector<int> refused_cores() const {
    std::vector<int> refused;
    for (std::size_t i = 0; i < cores_.size(); ++i) {
      if (refused_[i].load(std::memory_order_relaxed)) refused.push_back(cores_[i]);
    }
    return refused;
  }

  // f(member, size) on every member at once, the caller being member 0; returns when all have. The first exception of a
  // member is rethrown here. Does not allocate once the threads are there.
  template <class F>
  void run(F&& f) {
    if (size_ == 1) {
      f(0, 1);
      return;
    }
    start();
    using Function = std::remove_reference_t<F>;
    call_ = [](void* function, int member, int size) { (*static_cast<Function*>(function))(member, size); };
    function_ = const_cast<void*>(static_cast<const void*>(std::addressof(f)));
    working_.value().store(static_cast<std::uint32_t>(size_ - 1), std::memory_order_relaxed);
    begin_round();
    work(0);
    wait_while(working_, [](std::uint32_t working) { return working != 0; });
    if (failed_.load(std::memory_order_relaxed)) {
      failed_.store(false, std::memory_order_relaxed);
      std::rethrow_exception(std::exchange(failure_, nullptr));
    }
  }

 private:
  static constexpr int spins = 2000;

  // Returns when `busy` is false of the value. Either the one who changes it sees a sleeper, or the sleeper sees the
  // change.
  template <class Busy>
  std::uint32_t wait_while(detail::Futex& futex, Busy busy) {
    std::uint32_t now = futex.value().load(std::memory_order_acquire);
    for (int spin = 0; busy(now) && spin < spins; ++spin) {
      pause_core();
      now = futex.value().load(std::memory_order_acquire);
    }
    if (!busy(now)) return now;
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while (busy(now = futex.value().load(std::memory_order_seq_cst))) futex.sleep(now);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    return now;
  }
  void wake(detail::Futex& futex) {
    if (sleepers_.load(std::memory_order_seq_cst) != 0) futex.wake_all();
  }

  void start() {
    while (threads_.size() + 1 < static_cast<std::size_t>(size_)) {
      const int member = static_cast<int>(threads_.size()) + 1;
      const std::uint32_t round = round_.value().load(std::memory_order_relaxed);
      threads_.emplace_back([this, member, round] { serve(member, round); });
    }
  }

  bool pin(std::size_t member) {
    const bool done = pin_this_thread(cores_[member]);
    refused_[member].store(!done, std::memory_order_relaxed);
    return done;
  }

  void begin_round() {
    round_.value().fetch_add(1, std::memory_order_seq_cst);
    wake(round_);
  }

  void serve(int member, std::uint32_t round) {
    pin(static_cast<std::size_t>(member));
    while (true) {
      round = wait_while(round_, [round](std::uint32_t now) { return now == round; });
      if (stop_.load(std::memory_order_relaxed)) return;
      work(member);
      if (working_.value().fetch_sub(1, std::memory_order_seq_cst) == 1) wake(working_);
    }
  }

  void work(int member) noexcept {
    try {
      call_(function_, member, size_);
    } catch (...) {
      if (!failed_.exchange(true, std::memory_order_relaxed)) failure_ = std::current_exception();
    }
  }

  std::vector<int> cores_;
  int size_;
  std::vector<std::atomic<bool>> refused_;
  std::vector<std::thread> threads_;
  void (*call_)(void*, int, int) = nullptr;
  void* function_ = nullptr;
  alignas(64) detail::Futex round_;
  std::atomic<bool> stop_{false};
  std::atomic<int> sleepers_{0};
  alignas(64) detail::Futex working_;
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;
};

// f(begin, end) over [0, count), in one piece per member and whole units of `grain`; fewer members where there are
// fewer units, and the caller alone where there is one.
template <class F>
void parallel_for(Team& team, std::int64_t count, std::int64_t grain, F&& f) {
  if (count <= 0) return;
  const std::int64_t units = (count + grain - 1) / grain;
  if (team.size() == 1 || units <= 1) {
    f(std::int64_t{0}, count);
    return;
  }
  team.run([&](int member, int size) {
    const std::int64_t pieces = std::min<std::int64_t>(size, units);
    if (member >= pieces) return;
    const std::int64_t begin = units * member / pieces * grain;
    const std::int64_t end = std::min(count, units * (member + 1) / pieces * grain);
    f(begin, end);
  });
}

}  // namespace troika
