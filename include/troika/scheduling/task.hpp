// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/core/lane.hpp>
#include <troika/scheduling/lane_thread.hpp>
#include <troika/scheduling/task_node.hpp>

namespace troika {

namespace detail {
struct TaskAccess;
}

// A handle on a submitted task whatever it gives. Copies name the same task; it runs whether or not a handle is left,
// and handles may outlive their scheduler. Thread-safe as a shared_ptr is.
class AnyTask {
 public:
  AnyTask() = default;
  AnyTask(const AnyTask& other) noexcept : node_(other.node_) {
    if (node_) node_->retain();
  }
  AnyTask(AnyTask&& other) noexcept : node_(std::exchange(other.node_, nullptr)) {}
  AnyTask& operator=(AnyTask other) noexcept {
    std::swap(node_, other.node_);
    return *this;
  }
  ~AnyTask() {
    if (node_) node_->release();
  }

  bool valid() const noexcept { return node_ != nullptr; }
  bool done() const { return node().done(); }

  // Until the task is done, well or not. A lane that waits for itself would wait for ever, so this throws
  // Fault::invalid_argument where that could be: on a communication lane, and on a compute lane for a compute task.
  // What is left is a rank that waits for a communication task; that one must not come after a compute task that is not
  // done. A task needs no waiting inside: name what it needs in `after`.
  void wait() const {
    auto& task = node();
    if (task.done()) return;
    const auto& here = detail::this_lane;
    expects(here.scheduler != task.home || (here.lane == Lane::compute && task.lane == Lane::communication), [&] {
      return "waiting here for task '" + task.name +
             "' could last for ever: a lane does not wait for the tasks of its "
             "own scheduler, except compute for communication; name it in `after`";
    });
    task.wait();
  }

  // Waits; throws what the task threw.
  void check() const {
    wait();
    if (node_->failure) std::rethrow_exception(node_->failure);
  }

  // Waits; the device that ran it last, -1 if it never ran.
  int device() const {
    wait();
    return node_->device;
  }
  // Waits; on how many devices it was tried.
  int attempts() const {
    wait();
    return node_->attempt;
  }

 protected:
  // Takes over one reference.
  explicit AnyTask(detail::TaskNode* node) : node_(node) {}
  detail::TaskNode& node() const {
    expects(node_ != nullptr, "this handle names no task; it was default-made or moved from");
    return *node_;
  }

 private:
  friend struct detail::TaskAccess;
  detail::TaskNode* node_ = nullptr;
};

namespace detail {
struct TaskAccess {
  static TaskNode& node(const AnyTask& task) { return task.node(); }
};
}  // namespace detail

// A submitted task that gives an R.
template <class R>
class Task : public AnyTask {
 public:
  Task() = default;
  explicit Task(detail::ResultNode<R>* node) : AnyTask(node) {}

  // Waits; the result, or what the task threw. It stays with the task as long as a handle does...
  decltype(auto) get() const& {
    check();
    if constexpr (!std::is_void_v<R>) return std::as_const(*result());
  }
  // ... and is moved out of it by std::move(task).get() or submit(...).get(): once, and not beside other readers.
  R get() && {
    check();
    if constexpr (!std::is_void_v<R>) return std::move(*result());
  }

 private:
  auto& result() const { return static_cast<detail::ResultNode<R>&>(node()).result; }
};

struct TaskOptions {
  std::string name = "task";  // in logs, records and traces
  Lane lane = Lane::compute;
  double work = 0;               // estimated cost, in the unit of TaskScheduler::report; 0: not stated
  std::vector<AnyTask> after{};  // starts once all of these are done; gets the exception of one that fails
  int device = -1;               // only there, however it goes; -1: wherever the allocation picks
  bool retry = true;             // on another device when it throws. Such a callable may be called several times
};

}  // namespace troika
