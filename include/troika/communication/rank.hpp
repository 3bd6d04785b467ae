// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <typeindex>
#include <typeinfo>
#include <utility>
#include <vector>

#include <troika/core/error.hpp>
#include <troika/device/device.hpp>
#include <troika/observe/trace.hpp>

namespace troika {

// What the ranks of one process share: where they meet to connect a transport, and the board on which a failure is
// posted. Thread-safe.
class World {
 public:
  // Whoever sleeps while it waits for peers wants to be woken when one of them fails. Must not call the World's fail,
  // alert or meet.
  struct Alarm {
    virtual ~Alarm() = default;
    virtual void ring(int failed_rank) noexcept = 0;
  };

  explicit World(int size)
      : size_(checked(size)), meetings_(static_cast<std::size_t>(size), 0), records_(static_cast<std::size_t>(size)) {}
  int size() const { return size_; }

  // Posts that a rank cannot go on. The first failure stays. Every transport looks here while it waits. If the rank
  // fails only because of an error about another one, it is that other rank that is recorded.
  void fail(int rank, const std::string& what) noexcept {
    std::lock_guard lock(mutex_);
    record(rank).failed = true;
    if (!failed()) {
      failed_rank_ = at_fault(rank);
      try {
        failure_ = what;
      } catch (...) {
      }
      failed_.store(true, std::memory_order_seq_cst);
    }
    for (const auto& alarm : alarms_)
      if (const auto alive = alarm.lock()) alive->ring(rank);
  }
  bool failed() const noexcept { return failed_.load(std::memory_order_seq_cst); }
  int failed_rank() const noexcept { return failed() ? failed_rank_ : -1; }
  // Valid once failed() is true; it does not change after that.
  const std::string& failure() const noexcept { return failure_; }
  // Whether this rank was posted, first or later.
  bool has_failed(int rank) const noexcept { return record(rank).failed; }

  // A transport has told `rank` of a failure of rank `guilty`. What `rank` does next, leave or throw, is a consequence.
  void blame(int rank, int guilty) noexcept {
    int nobody = -1;
    if (guilty >= 0) record(rank).blames.compare_exchange_strong(nobody, guilty);
  }
  // What `rank` was told of is settled: what it does next is its own doing.
  void forgive(int rank) noexcept { record(rank).blames = -1; }
  // Whom the first error of this rank named; the rank itself if it had none.
  int at_fault(int rank) const noexcept {
    const int guilty = record(rank).blames;
    return guilty < 0 ? rank : guilty;
  }
  // Rings at the failure of a rank, as long as the alarm lives.
  void alert(std::weak_ptr<Alarm> alarm) {
    std::lock_guard lock(mutex_);
    std::erase_if(alarms_, [](const auto& old) { return old.expired(); });
    alarms_.push_back(std::move(alarm));
  }

  // The n-th call of every rank gets the same object, made by whichever rank comes first. All must ask for the same
  // type.
  template <class Hub>
  std::shared_ptr<Hub> meet(int rank, const std::function<std::shared_ptr<Hub>()>& make) {
    std::lock_guard lock(mutex_);
    const int meeting = meetings_[static_cast<std::size_t>(rank)]++;
    auto& hub = hubs_[meeting];
    if (!hub.object) {
      hub.object = make();
      hub.type = typeid(Hub);
    }
    if (hub.type != typeid(Hub)) {
      throw Error(Fault::mismatch, "this rank connects another kind of transport than its peers", {rank, "connect", 0});
    }
    auto result = std::static_pointer_cast<Hub>(hub.object);
    if (++hub.arrived == size_) hubs_.erase(meeting);
    return result;
  }

 private:
  struct Met {
    std::shared_ptr<void> object;
    std::type_index type = typeid(void);
    int arrived = 0;
  };

  struct Record {
    std::atomic<bool> failed{false};
    std::atomic<int> blames{-1};
  };

  Record& record(int rank) { return records_[static_cast<std::size_t>(rank)]; }
  const Record& record(int rank) const { return records_[static_cast<std::size_t>(rank)]; }
  static int checked(int size) {
    expects(size >= 1, [&] { return "a world has at least 1 rank, not " + std::to_string(size); });
    return size;
  }

  int size_;
  std::mutex mutex_;
  std::atomic<bool> failed_{false};
  int failed_rank_ = -1;
  std::string failure_;
  std::vector<int> meetings_;
  std::map<int, Met> hubs_;
  std::vector<std::weak_ptr<Alarm>> alarms_;
  std::vector<Record> records_;
};

// One participant of an SPMD run: its number, its device, its stream. Made by the scheduler, passed by reference.
template <Device D>
class Rank {
 public:
  using Device = D;

  Rank(int rank, D& device, std::shared_ptr<World> world, Trace* trace = nullptr)
      : rank_(rank), device_(&device), stream_(device), world_(std::move(world)), trace_(trace) {}

  int rank() const { return rank_; }
  int world_size() const { return world_->size(); }
  D& device() const { return *device_; }
  typename D::Stream& stream() { return stream_; }
  World& world() const { return *world_; }
  const std::shared_ptr<World>& shared_world() const { return world_; }
  // Null when nobody traces.
  Trace::Track* track(Lane lane) const { return trace_ ? &trace_->track(rank_, lane) : nullptr; }

 private:
  int rank_;
  D* device_;
  typename D::Stream stream_;
  std::shared_ptr<World> world_;
  Trace* trace_;
};

}  // namespace troika
