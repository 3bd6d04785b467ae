// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <troika/communication/rank.hpp>
#include <troika/communication/simulated_core.hpp>
#include <troika/communication/transport.hpp>

namespace troika {

// A network with a virtual clock, for tests of what happens when things are slow or break, and for estimates. Make one
// for each run of ranks; it lives as long as somebody uses it.
class SimulatedFabric {
 public:
  explicit SimulatedFabric(SimulatedOptions options = {})
      : core_(std::make_shared<SimulatedCore>(std::move(options))) {}

  // Virtual seconds on the clock of a rank.
  double now(int rank) const { return core_->now(rank); }
  // Moves the clock of a rank by so many seconds, times its slowdown.
  void compute(int rank, double seconds) { core_->compute(rank, seconds); }
  // A hash of the order in which the ranks ran.
  std::uint64_t history() const { return core_->history(); }

 private:
  friend struct Simulated;
  std::shared_ptr<SimulatedCore> core_;
};

// One rank's end. It has messages and agreement, nothing else: every collective is composed.
class SimulatedEndpoint {
 public:
  static constexpr bool host_memory = true;

  SimulatedEndpoint(SimulatedEndpoint&&) = default;
  SimulatedEndpoint& operator=(SimulatedEndpoint&& other) noexcept {
    leave();
    core_ = std::move(other.core_);
    group_ = std::move(other.group_);
    rank_ = other.rank_;
    operation_ = other.operation_;
    sequence_ = other.sequence_;
    deadline_ = other.deadline_;
    return *this;
  }
  ~SimulatedEndpoint() { leave(); }

  int rank() const { return rank_; }
  int world_size() const { return group_->size(); }
  int world_rank(int rank) const { return group_->world_rank(rank); }

  void agree(const Call& call) { core_->agree(*group_, rank_, call, deadline(call)); }
  void send(const Call& call, std::span<const std::byte> data, int peer) {
    core_->send(*group_, rank_, call, data, peer, deadline(call));
  }
  void recv(const Call& call, std::span<std::byte> buffer, int peer) {
    core_->recv(*group_, rank_, call, buffer, peer, deadline(call));
  }
  SimulatedEndpoint split(const Call& call, int color, int key) {
    core_->agree(*group_, rank_, call, deadline(call), color, key);
    auto part = core_->part(*group_, rank_);
    const int me = world_rank(rank_);
    int place = 0;
    while (part->world_rank(place) != me) ++place;
    return {core_, std::move(part), place};
  }

 private:
  friend struct Simulated;
  SimulatedEndpoint(std::shared_ptr<SimulatedCore> core, std::shared_ptr<SimulatedCore::Group> group, int rank)
      : core_(std::move(core)), group_(std::move(group)), rank_(rank) {}

  // In virtual seconds. One collective has one deadline, of however many messages it is made.
  double deadline(const Call& call) {
    if (call.signature.operation != operation_ || call.sequence != sequence_ || operation_ >= Operation::send) {
      operation_ = call.signature.operation;
      sequence_ = call.sequence;
      deadline_ = core_->now(world_rank(rank_)) + std::chrono::duration<double>(call.deadline).count();
    }
    return deadline_;
  }
  void leave() noexcept {
    if (core_ && group_) core_->leave(*group_, rank_);
  }

  std::shared_ptr<SimulatedCore> core_;
  std::shared_ptr<SimulatedCore::Group> group_;
  int rank_ = 0;
  Operation operation_ = Operation::barrier;
  std::uint64_t sequence_ = 0;
  double deadline_ = 0;
};

// Communication communication{rank, Simulated{fabric}};
struct Simulated {
  explicit Simulated(SimulatedFabric& fabric) : core(fabric.core_) {}
  std::shared_ptr<SimulatedCore> core;

  template <Device D>
  SimulatedEndpoint connect(Rank<D>& rank) {
    return {core, core->connect(rank.rank(), rank.shared_world()), rank.rank()};
  }
};

static_assert(Endpoint<SimulatedEndpoint>);
static_assert(Transport<Simulated>);
static_assert(!HasAllReduce<SimulatedEndpoint> && !HasAllGather<SimulatedEndpoint> && HostMemory<SimulatedEndpoint>);

}  // namespace troika
