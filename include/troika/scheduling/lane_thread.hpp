// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include <troika/core/lane.hpp>
#include <troika/device/host/futex.hpp>
#include <troika/scheduling/job_queue.hpp>

namespace troika::detail {

// Which lane the calling thread is, if it is one. Only read to refuse calls that could never return.
struct ThisLane {
  const void* scheduler = nullptr;
  int device = -1;
  Lane lane = Lane::compute;
};
inline thread_local ThisLane this_lane{};

// One thread, one queue: what a device does in one lane, in order.
class LaneThread {
 public:
  // `prepare` runs first on the new thread (pinning); what it throws comes out of ready().
  LaneThread(ThisLane self, Patience patience, std::function<void()> prepare)
      : thread_([this, self, patience, prepare = std::move(prepare)] {
          this_lane = self;
          try {
            prepare();
          } catch (...) {
            failure_ = std::current_exception();
          }
          ready_.value().store(1);
          ready_.wake_one();
          work(patience);
        }) {
    stop_.run = [](Job& job) noexcept { static_cast<Stop&>(job).stopped = true; };
  }
  LaneThread(const LaneThread&) = delete;
  LaneThread& operator=(const LaneThread&) = delete;
  ~LaneThread() { stop(); }

  // Runs what is queued, then ends the thread.
  void stop() {
    if (!thread_.joinable()) return;
    queue_.push(stop_);
    thread_.join();
  }
  void ready() {
    while (ready_.value().load() == 0) ready_.sleep(0);
    if (failure_) std::rethrow_exception(failure_);
  }
  JobQueue& queue() { return queue_; }

 private:
  struct Stop : Job {
    bool stopped = false;
  };

  void work(Patience patience) noexcept {
    while (!stop_.stopped) {
      for (Job* job = queue_.take(patience); job;) {
        Job* next = job->next;  // a job may be gone once it ran
        job->run(*job);
        job = next;
      }
    }
  }

  JobQueue queue_;
  Stop stop_;
  std::exception_ptr failure_;
  Futex ready_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace troika::detail
