// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/core/lane.hpp>
#include <troika/device/host/futex.hpp>
#include <troika/scheduling/job_queue.hpp>
#include <troika/scheduling/task_record.hpp>

namespace troika::detail {

class TaskNode;

// What a task node needs of its scheduler.
class TaskHome {
 public:
  // Everything the task waits for is done. False: it cannot run, and its failure says why.
  virtual bool place(TaskNode& node) noexcept = 0;
  // It will be done in a moment, without a try: write that down.
  virtual void note_unrun(TaskNode& node) noexcept = 0;
  // It is done, and all that waited for it was told. The home may be destroyed once every task is gone.
  virtual void gone() noexcept = 0;

 protected:
  ~TaskHome() = default;
};

// One task, in one allocation: options, callable, result, and who waits for it. The scheduler holds one reference until
// the task is done, each handle another.
class TaskNode : public Job {
 public:
  TaskNode() = default;
  TaskNode(const TaskNode&) = delete;
  TaskNode& operator=(const TaskNode&) = delete;
  virtual ~TaskNode() = default;

  // One try on the device that `where` points to; stores the result.
  virtual void invoke(void* where) = 0;
  // Destroys the callable: what it captured should be gone before anybody hears that the task is done.
  virtual void drop_callable() noexcept = 0;

  void retain() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  bool done() const noexcept { return state_.value().load(std::memory_order_acquire) & finished; }
  void wait() noexcept {
    if (Patience{spins}.until([this] { return done(); })) return;
    for (auto state = state_.value().load(std::memory_order_acquire); !(state & finished);) {
      if ((state & awaited) ||
          state_.value().compare_exchange_weak(state, state | awaited, std::memory_order_acquire)) {
        state_.sleep(state | awaited);
        state = state_.value().load(std::memory_order_acquire);
      }
    }
  }

  // Makes this task wait for another one that may be done already. Before release_guard().
  void depend_on(TaskNode& other, std::size_t link) noexcept {
    Link& mine = links_ ? links_[link] : one_link_;
    mine.dependent = this;
    missing_.fetch_add(1, std::memory_order_relaxed);
    Link* head = other.dependents_.load(std::memory_order_acquire);
    do {
      if (head == other.closed()) {
        if (other.failure) inherit(other.failure);
        missing_.fetch_sub(1, std::memory_order_relaxed);
        return;
      }
      mine.next = head;
    } while (
        !other.dependents_.compare_exchange_weak(head, &mine, std::memory_order_acq_rel, std::memory_order_acquire));
  }
  void reserve_links(std::size_t count) {
    if (count > 1) links_ = std::make_unique<Link[]>(count);
  }

  // All dependencies are named: places the task if none of them is missing.
  void release_guard() noexcept {
    if (missing_.fetch_sub(1, std::memory_order_acq_rel) == 1 && !start()) settle(*this);
  }

  // The task is done, well or with its failure. Starts the tasks that waited for it, and settles those that cannot
  // start; a loop, because chains may be longer than a stack is deep.
  static void settle(TaskNode& first) noexcept {
    first.next = nullptr;
    for (Job* settled = &first; settled;) {
      TaskNode& node = static_cast<TaskNode&>(*settled);
      settled = node.next;
      node.drop_callable();
      if (node.outcome == TaskOutcome::skipped || node.outcome == TaskOutcome::cancelled) node.home->note_unrun(node);
      // Finished before closed: who finds the list closed runs at once, and must find this task done.
      if (node.state_.value().exchange(finished, std::memory_order_acq_rel) & awaited) node.state_.wake_all();
      Link* link = node.dependents_.exchange(node.closed(), std::memory_order_acq_rel);
      while (link) {
        TaskNode& dependent = *link->dependent;
        link = link->next;  // the link may be gone once its task can run
        if (node.failure) dependent.inherit(node.failure);
        if (dependent.missing_.fetch_sub(1, std::memory_order_acq_rel) == 1 && !dependent.start()) {
          dependent.next = settled;
          settled = &dependent;
        }
      }
      node.home->gone();
      node.release();
    }
  }

  // Set by submit(), then constant.
  TaskHome* home = nullptr;
  std::uint64_t id = 0;
  std::string name;
  Lane lane = Lane::compute;
  double work = 0;
  int forced_device = -1;
  bool retry = true;
  std::chrono::steady_clock::time_point submitted{};

  // Of the thread that has the task in hand; anybody's to read once it is done.
  int device = -1;
  int attempt = 0;
  bool probe = false;
  struct Failed {
    int device;
    bool blamed;
  };
  std::vector<Failed> failed_on{};  // tries so far
  std::exception_ptr failure{};     // of the first try; null again if a later one succeeds
  TaskOutcome outcome = TaskOutcome::succeeded;

 private:
  struct Link {
    TaskNode* dependent = nullptr;
    Link* next = nullptr;
  };
  static constexpr std::uint32_t finished = 1, awaited = 2;
  static constexpr int spins = 200;

  // In the list of dependents: no more are taken. A task is no dependent of its own, so its link is free to say so.
  Link* closed() noexcept { return &one_link_; }

  void inherit(const std::exception_ptr& theirs) noexcept {
    if (blocked_.exchange(true, std::memory_order_relaxed)) return;
    failure = theirs;
    outcome = TaskOutcome::skipped;
  }
  bool start() noexcept { return !blocked_.load(std::memory_order_relaxed) && home->place(*this); }

  std::atomic<int> references_{2};
  Futex state_;
  std::atomic<int> missing_{1};  // dependencies that are not done, and a guard while they are being named
  std::atomic<bool> blocked_{false};
  std::atomic<Link*> dependents_{nullptr};
  std::unique_ptr<Link[]> links_;  // one for each dependency if there are several
  Link one_link_;
};

template <class R>
class ResultNode : public TaskNode {
 public:
  std::optional<R> result;
};
template <>
class ResultNode<void> : public TaskNode {};

}  // namespace troika::detail
