// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <troika/communication/rank.hpp>
#include <troika/core/error.hpp>
#include <troika/device/host/futex.hpp>
#include <troika/scheduling/job_queue.hpp>

namespace troika::detail {

inline std::string what_of(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception that is not a std::exception";
  }
}

// What the ranks of one run threw. The cause wins: the first in time that is not the report of another rank's failure
// (Fault::peer_failed); if there is no other, the first of those.
class RankFailures {
 public:
  // On the failing rank's thread, from within a catch block.
  void post(World& world, int rank) noexcept {
    const auto exception = std::current_exception();
    bool consequence = false;
    std::string what;
    try {
      what = what_of(exception);
      std::rethrow_exception(exception);
    } catch (const Error& error) {
      consequence = error.fault() == Fault::peer_failed;
    } catch (...) {
    }
    {
      std::lock_guard lock(mutex_);
      auto& first = consequence ? consequence_ : cause_;
      if (!first) first = exception;
    }
    world.fail(rank, what);  // after it was posted: what this makes others throw must come later
  }

  // Once all ranks returned.
  void rethrow() const {
    if (cause_) std::rethrow_exception(cause_);
    if (consequence_) std::rethrow_exception(consequence_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr cause_, consequence_;
};

// Runs one function on every compute lane at once. One gang at a time: two that interleave on the lanes would wait for
// each other for ever.
class Gang {
 public:
  explicit Gang(int size) : members_(static_cast<std::size_t>(size)) {
    for (std::size_t i = 0; i < members_.size(); ++i) {
      members_[i].run = enter;
      members_[i].gang = this;
      members_[i].index = static_cast<int>(i);
    }
  }

  // body(index) must not throw. `queue_of(index)` is the queue of that member's lane. Returns when all have returned;
  // the caller holds the gang's lock.
  template <class Body, class QueueOf>
  void run(Body& body, QueueOf&& queue_of, Patience& patience) {
    body_ = [](void* context, int index) { (*static_cast<Body*>(context))(index); };
    context_ = &body;
    running_.value().store(static_cast<std::uint32_t>(members_.size()), std::memory_order_relaxed);
    for (auto& member : members_) queue_of(member.index).push(member);
    if (patience.until([&] { return running_.value().load(std::memory_order_acquire) == 0; })) return;
    for (std::uint32_t left; (left = running_.value().load(std::memory_order_acquire)) != 0;) running_.sleep(left);
  }

  std::mutex& mutex() { return mutex_; }

 private:
  struct Member : Job {
    Gang* gang = nullptr;
    int index = 0;
  };

  static void enter(Job& job) noexcept {
    auto& member = static_cast<Member&>(job);
    Gang& gang = *member.gang;
    gang.body_(gang.context_, member.index);
    if (gang.running_.value().fetch_sub(1, std::memory_order_acq_rel) == 1) gang.running_.wake_one();
  }

  std::mutex mutex_;
  std::vector<Member> members_;
  void (*body_)(void*, int) = nullptr;
  void* context_ = nullptr;
  alignas(64) Futex running_;
};

}  // namespace troika::detail
