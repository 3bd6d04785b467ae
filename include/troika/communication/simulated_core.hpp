// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/agreement.hpp>
#include <troika/communication/rank.hpp>
#include <troika/communication/simulated_group.hpp>
#include <troika/communication/simulated_options.hpp>
#include <troika/communication/transport.hpp>

namespace troika {

// Network and clock of a simulation. Ranks are threads, but only one runs at a time: at every step a rank gives up its
// turn, and a generator that is seeded draws who is next. A seed therefore replays the same run. Time is virtual, one
// clock a rank: it moves by messages and by compute(). When every rank waits, the one whose deadline is next times out.
//
// Serves one World. Thread-safe.
class SimulatedCore : public World::Alarm, public std::enable_shared_from_this<SimulatedCore> {
 public:
  using Group = SimulatedGroup;

  explicit SimulatedCore(SimulatedOptions options) : options_(std::move(options)), random_(options_.seed) {
    expects(options_.latency >= 0 && options_.bandwidth > 0,
            "a simulated network needs a latency of 0 or more and a bandwidth above 0");
  }

  // The virtual time of a rank, in seconds.
  double now(int rank) const {
    std::lock_guard lock(mutex_);
    return index(rank) < seats_.size() ? seats_[index(rank)].now : 0;
  }
  // The rank computes for so long.
  void compute(int rank, double seconds) {
    std::lock_guard lock(mutex_);
    if (index(rank) >= seats_.size()) return;
    const double factor = index(rank) < options_.slowdown.size() ? options_.slowdown[index(rank)] : 1;
    seats_[index(rank)].now += seconds * factor;
  }
  // A hash of who had the turn when: equal for equal interleavings.
  std::uint64_t history() const {
    std::lock_guard lock(mutex_);
    return history_;
  }

  // What endpoints call. `me` and `peer` are ranks of the group.
  std::shared_ptr<Group> connect(int rank, const std::shared_ptr<World>& world) {
    // Before the lock: a failing World holds its own lock while it rings.
    if (!alerted_.exchange(true)) world->alert(weak_from_this());
    std::unique_lock lock(mutex_);
    if (!world_) {
      world_ = world;
      seats_.resize(static_cast<std::size_t>(world->size()));
    }
    expects(world_ == world, "a simulated fabric serves one world; make another fabric");
    Seat& seat = seats_[index(rank)];
    const std::size_t number = seat.connects++;
    if (number == connected_.size()) {
      std::vector<int> ranks;
      for (int r = 0; r < world->size(); ++r) ranks.push_back(r);
      connected_.push_back(std::make_shared<Group>(std::move(ranks)));
      groups_.push_back(connected_.back());
    }
    ++seat.endpoints;
    for (int r = 0; r < world->size(); ++r)
      if (world->has_failed(r)) lose(r);
    if (seat.state == State::absent || seat.state == State::left) {
      seat.state = State::ready;
      start_if_all_are_there();
      wait_turn(lock, rank);
    }
    return connected_[number];
  }

  void agree(Group& group, int me, const Call& call, double deadline, int color = 0, int key = 0) {
    std::unique_lock lock(mutex_);
    const int rank = group.world_rank(me);
    Seat& seat = take_turn(lock, rank, group, call);
    check(group, call, rank);
    auto& mine = group.arrival(me);
    mine = {true, false, call.signature, seat.now, deadline, color, key, nullptr};
    if (std::exchange(seat.diverges, false)) mine.signature = diverged(call.signature);
    if (++group.here < group.size()) {
      const auto before = group.agreements;
      for (int r = 0; r < group.size(); ++r) {
        if (group.arrival(r).left && !group.arrival(r).here) fail(group, has_left(group, r), call, rank);
      }
      block(lock, rank, group, -1, deadline);
      if (group.agreements == before) check(group, call, rank);
      return;
    }
    complete(group, call, rank);
  }
  std::shared_ptr<Group> part(Group& group, int me) {
    std::lock_guard lock(mutex_);
    ++seats_[index(group.world_rank(me))].endpoints;
    return std::exchange(group.arrival(me).part, nullptr);
  }

  void send(Group& group, int me, const Call& call, std::span<const std::byte> data, int peer, double deadline) {
    move(group, me, peer, call, {true, call.signature, data.data(), nullptr, data.size()}, true, deadline);
  }
  void recv(Group& group, int me, const Call& call, std::span<std::byte> buffer, int peer, double deadline) {
    move(group, me, peer, call, {true, call.signature, nullptr, buffer.data(), buffer.size()}, false, deadline);
  }

  void leave(Group& group, int me) noexcept {
    std::lock_guard lock(mutex_);
    const int rank = group.world_rank(me);
    Seat& seat = seats_[index(rank)];
    --seat.endpoints;
    if (seat.state == State::stopped) return;
    if (seat.endpoints == 0 && seat.state != State::left) {
      seat.state = State::left;
      if (turn_ == rank) turn_ = -1;
    }
    remove(group, me, has_left(group, me));
    give_turn();
  }

  // A rank of the world failed. Ranks that have left or were stopped are no news: what their peers see of them does not
  // depend on when this comes.
  void ring(int rank) noexcept override {
    std::lock_guard lock(mutex_);
    if (world_) lose(rank);
  }

 private:
  enum class State { absent, ready, running, waiting, silent, stopped, left };

  struct Seat {
    State state = State::absent;
    double now = 0;
    std::uint64_t steps = 0;
    std::size_t connects = 0;
    int endpoints = 0;
    bool diverges = false, done = false;
    Group* waits_in = nullptr;  // while waiting: the group, the peer there (-1: an agreement), the end of patience
    int waits_for = -1;
    double deadline = 0;
    std::condition_variable turn;
  };

  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }
  std::uint64_t draw(std::uint64_t below) {  // splitmix64
    std::uint64_t z = (random_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
  }

  Signature diverged(Signature signature) {
    const auto kind = draw(3);
    if (kind == 0) {
      signature.operation = signature.operation == Operation::barrier ? Operation::all_gather : Operation::barrier;
    } else if (kind == 1) {
      signature.dtype = signature.dtype == DType::f32 ? DType::i32 : DType::f32;
    } else {
      ++signature.count;
    }
    return signature;
  }

  void start_if_all_are_there() {
    if (!started_) {
      for (const auto& seat : seats_)
        if (seat.state == State::absent) return;
      started_ = true;
    }
    give_turn();
  }

  // Every step begins here: the rank gives up its turn, gets it back some time, and meets its failures.
  Seat& take_turn(std::unique_lock<std::mutex>& lock, int rank, Group& group, const Call& call) {
    Seat& seat = seats_[index(rank)];
    if (seat.state == State::left || seat.state == State::stopped) {
      throw error_of({Fault::peer_failed, rank, "rank " + std::to_string(rank) + " is gone from the simulation"}, call);
    }
    seat.state = State::ready;
    if (turn_ == rank) turn_ = -1;
    give_turn();
    wait_turn(lock, rank);
    ++seat.steps;
    for (const auto& failure : options_.failures) {
      if (failure.rank != rank || failure.at != seat.steps) continue;
      switch (failure.kind) {
        case SimulatedFailure::Kind::slow: seat.now += failure.seconds; break;
        case SimulatedFailure::Kind::diverge: seat.diverges = true; break;
        case SimulatedFailure::Kind::throws:
          throw std::runtime_error("rank " + std::to_string(rank) + " throws, as the simulation wants");
        case SimulatedFailure::Kind::stop:
          seat.state = State::stopped;
          turn_ = -1;
          give_turn();
          throw error_of({Fault::peer_failed, rank, "the simulation stopped rank " + std::to_string(rank)}, call);
      }
    }
    if (group.failure) check(group, call, rank);
    return seat;
  }

  void wait_turn(std::unique_lock<std::mutex>& lock, int rank) {
    Seat& seat = seats_[index(rank)];
    while (turn_ != rank) {
      const auto seen = turns_;
      if (seat.turn.wait_for(lock, options_.patience) == std::cv_status::timeout && seen == turns_ && turn_ != rank) {
        if (turn_ >= 0) seats_[index(turn_)].state = State::silent;
        started_ = true;
        turn_ = -1;
        give_turn();
      }
    }
  }

  // Waits in the group for `peer`, or for all.
  void block(std::unique_lock<std::mutex>& lock, int rank, Group& group, int peer, double deadline) {
    Seat& seat = seats_[index(rank)];
    seat.state = State::waiting;
    seat.waits_in = &group;
    seat.waits_for = peer;
    seat.deadline = deadline;
    turn_ = -1;
    give_turn();
    wait_turn(lock, rank);
  }
  void unblock(int rank) {
    Seat& seat = seats_[index(rank)];
    if (seat.state == State::waiting) seat.state = State::ready;
    seat.waits_in = nullptr;
  }

  void give_turn() {
    while (started_ && turn_ < 0) {
      const auto ready = std::ranges::count(seats_, State::ready, &Seat::state);
      if (ready == 0) {
        if (!end_deadlock()) return;
        continue;
      }
      auto chosen = draw(static_cast<std::uint64_t>(ready));
      for (std::size_t r = 0; r < seats_.size(); ++r) {
        if (seats_[r].state != State::ready || chosen-- != 0) continue;
        seats_[r].state = State::running;
        turn_ = static_cast<int>(r);
        ++turns_;
        history_ = (history_ ^ (r + 1)) * 0x100000001b3u;
        seats_[r].turn.notify_one();
        return;
      }
    }
  }

  // Everybody waits: virtual time moves on to the next deadline. False if nobody waits.
  bool end_deadlock() {
    Seat* next = nullptr;
    for (auto& seat : seats_) {
      if (seat.state == State::waiting && (!next || seat.deadline < next->deadline)) next = &seat;
    }
    if (!next) return false;
    Group& group = *next->waits_in;
    const int rank =
        static_cast<int>(std::ranges::find_if(seats_, [&](auto& seat) { return &seat == next; }) - seats_.begin());
    if (auto mismatch = crossed_calls(group)) {
      post(group, std::move(*mismatch));
      return true;
    }
    const int missing = waits_for(rank);
    int guilty = missing;
    for (std::size_t steps = 0; seats_[index(guilty)].state == State::waiting; ++steps) {
      if (steps == seats_.size()) {  // they wait in a circle
        guilty = missing;
        break;
      }
      guilty = waits_for(guilty);
    }
    next->now = std::max(next->now, next->deadline);
    post(group, {Fault::timeout, guilty, "rank " + std::to_string(guilty) + " did not come by the deadline"});
    return true;
  }
  // The rank of the world that a waiting rank waits for; the first of them.
  int waits_for(int rank) {
    const Seat& seat = seats_[index(rank)];
    Group& group = *seat.waits_in;
    if (seat.waits_for >= 0) return group.world_rank(seat.waits_for);
    for (int r = 0; r < group.size(); ++r)
      if (!group.arrival(r).here) return group.world_rank(r);
    return rank;
  }
  // One rank waits for a message of another that waits in a collective of the same group.
  std::optional<Failure> crossed_calls(Group& group) {
    if (group.here == 0) return std::nullopt;
    for (int r = 0; r < group.size(); ++r) {
      const Seat& seat = seats_[index(group.world_rank(r))];
      if (seat.state != State::waiting || seat.waits_in != &group || seat.waits_for < 0) continue;
      const int peer = seat.waits_for;
      if (!group.arrival(peer).here) continue;
      const auto& mine = group.message(r, peer).here ? group.message(r, peer) : group.message(peer, r);
      const bool blame_peer = 2 * group.here < group.size() || (2 * group.here == group.size() && r == 0);
      return Failure{Fault::mismatch, group.world_rank(blame_peer ? peer : r),
                     "rank " + std::to_string(group.world_rank(r)) + " called " + describe(mine.signature) +
                         " with rank " + std::to_string(group.world_rank(peer)) + ", which called " +
                         describe(group.arrival(peer).signature)};
    }
    return std::nullopt;
  }

  // The last rank has arrived.
  void complete(Group& group, const Call& call, int rank) {
    const auto latest = std::ranges::max_element(group.arrivals, {}, &Group::Arrival::time);
    const double rounds = std::bit_width(static_cast<unsigned>(group.size() - 1));
    const double end = latest->time + options_.latency * rounds;
    for (const auto& arrival : group.arrivals) {
      if (end <= arrival.deadline) continue;
      const int late = group.world_rank(static_cast<int>(latest - group.arrivals.begin()));
      fail(group, {Fault::timeout, late, "rank " + std::to_string(late) + " came after the deadline"}, call, rank);
    }
    if (auto wrong = find_mismatch(
            group.size(), [&](int r) -> const Signature& { return group.arrival(r).signature; },
            [&](int r) { return group.world_rank(r); })) {
      fail(group, std::move(*wrong), call, rank);
    }
    if (call.signature.operation == Operation::split) {
      for (auto& part : make_parts(group)) groups_.push_back(std::move(part));
    }
    ++group.agreements;
    group.here = 0;
    for (int r = 0; r < group.size(); ++r) {
      group.arrival(r).here = false;
      seats_[index(group.world_rank(r))].now = end;
      unblock(group.world_rank(r));
    }
  }

  void move(Group& group, int me, int peer, const Call& call, Group::Message half, bool sends, double deadline) {
    std::unique_lock lock(mutex_);
    const int rank = group.world_rank(me), other = group.world_rank(peer);
    Seat& seat = take_turn(lock, rank, group, call);
    check(group, call, rank);
    auto& message = sends ? group.message(me, peer) : group.message(peer, me);
    if (!message.here) {
      if (group.arrival(peer).left) fail(group, has_left(group, peer), call, rank);
      message = half;
      seat.done = false;
      block(lock, rank, group, peer, deadline);
      if (!seat.done) check(group, call, rank);
      return;
    }
    const auto& sent = sends ? half : message;
    const auto& received = sends ? message : half;
    if (!is_one_message(sent.signature, received.signature) || sent.size != received.size) {
      fail(group, message_mismatch(sends ? rank : other, sent.signature, sends ? other : rank, received.signature),
           call, rank);
    }
    Seat& partner = seats_[index(other)];
    const double end =
        std::max(seat.now, partner.now) + options_.latency + static_cast<double>(sent.size) / options_.bandwidth;
    if (end > std::min(deadline, partner.deadline)) {
      const int late = seat.now >= partner.now ? rank : other;
      fail(group, {Fault::timeout, late, "rank " + std::to_string(late) + " came after the deadline"}, call, rank);
    }
    if (sent.size) std::memcpy(received.buffer, sent.data, sent.size);
    message.here = false;
    seat.now = partner.now = end;
    partner.done = true;
    unblock(other);
  }

  void check(Group& group, const Call& call, int rank) {
    if (group.failure) tell(group, call, rank);
  }
  [[noreturn]] void fail(Group& group, Failure failure, const Call& call, int rank) {
    post(group, std::move(failure));
    tell(group, call, rank);
  }
  [[noreturn]] void tell(Group& group, const Call& call, int rank) {
    world_->blame(rank, group.failure->rank);
    throw error_of(*group.failure, call);
  }
  void post(Group& group, Failure failure) {
    if (!group.failure) group.failure = std::move(failure);
    for (auto& message : group.messages) message.here = false;
    for (std::size_t r = 0; r < seats_.size(); ++r) {
      if (seats_[r].waits_in == &group) unblock(static_cast<int>(r));
    }
  }

  Failure has_left(const Group& group, int r) const { return departure(*world_, group.world_rank(r)); }
  // The rank does not come any more. Those who wait for it learn it now, others when they come to wait.
  void remove(Group& group, int me, Failure failure) {
    group.arrival(me).left = true;
    for (const int rank : group.world_ranks) {
      const Seat& seat = seats_[index(rank)];
      if (seat.waits_in == &group && (seat.waits_for == me || seat.waits_for < 0))
        return post(group, std::move(failure));
    }
  }
  void lose(int rank) {
    Seat& seat = seats_[index(rank)];
    if (seat.state == State::left || seat.state == State::stopped) return;
    seat.state = State::left;
    if (turn_ == rank) turn_ = -1;
    for (const auto& weak : groups_) {
      const auto group = weak.lock();
      if (!group) continue;
      for (int r = 0; r < group->size(); ++r) {
        if (group->world_rank(r) != rank) continue;
        remove(*group, r, {Fault::peer_failed, rank, "rank " + std::to_string(rank) + " failed: " + world_->failure()});
      }
    }
    start_if_all_are_there();
  }

  SimulatedOptions options_;
  std::uint64_t random_;
  mutable std::mutex mutex_;
  std::shared_ptr<World> world_;
  std::deque<Seat> seats_;
  std::vector<std::shared_ptr<Group>> connected_;
  std::vector<std::weak_ptr<Group>> groups_;
  std::atomic<bool> alerted_{false};
  bool started_ = false;
  int turn_ = -1;  // the rank that runs
  std::uint64_t turns_ = 0, history_ = 0xcbf29ce484222325u;
};

}  // namespace troika
