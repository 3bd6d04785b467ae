// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <troika/scheduling/speed_meter.hpp>

namespace troika::serving {

// Who waits to begin, and how long that will take: whoever would wait for longer than he can is better told at once.
// Thread-safe. Outlives its places.
class Backlog {
 public:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;

  // Of a request that waits; gone, it waits no more.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept
        : backlog_(std::exchange(other.backlog_, nullptr)), client_(std::move(other.client_)) {}
    Place& operator=(Place&& other) noexcept {
      std::swap(backlog_, other.backlog_);
      std::swap(client_, other.client_);
      return *this;
    }
    ~Place() { leave(false); }

    void begin() { leave(true); }
    void give_up() { leave(false); }

   private:
    friend class Backlog;
    Place(Backlog& backlog, std::string client) : backlog_(&backlog), client_(std::move(client)) {}
    void leave(bool begins) {
      if (auto* const backlog = std::exchange(backlog_, nullptr)) backlog->left(client_, begins);
    }

    Backlog* backlog_ = nullptr;
    std::string client_{};
  };

  Place join(const std::string& client) {
    std::lock_guard lock(mutex_);
    ++waiting_[client];
    return {*this, client};
  }

  // Until another one of this client would begin. Clients take turns: who has one that waits lets each other client go
  // first with two. 0 where nobody waits, or nothing is known yet.
  Seconds expected_wait(const std::string& client) const {
    std::lock_guard lock(mutex_);
    if (waiting_.empty() || begins_.speed() <= 0) return Seconds(0);
    const auto own = waiting_.find(client);
    const auto mine = own == waiting_.end() ? 0 : own->second;
    std::int64_t turns = mine + 1;
    for (const auto& [name, count] : waiting_) turns += name == client ? 0 : std::min(count, mine + 1);
    return Seconds(static_cast<double>(turns) / begins_.speed());
  }

  // All have begun that could. What counts is how many begin while others have to wait, not how many could.
  void planned(Clock::time_point now) {
    std::lock_guard lock(mutex_);
    if (full_since_ && begun_ > 0) begins_.add(begun_, Seconds(now - *full_since_).count());
    if (waiting_.empty())
      full_since_.reset();
    else if (!full_since_ || begun_ > 0)
      full_since_ = now;
    begun_ = 0;
  }

 private:
  void left(const std::string& client, bool begins) {
    std::lock_guard lock(mutex_);
    begun_ += begins ? 1 : 0;
    if (const auto found = waiting_.find(client); --found->second == 0) waiting_.erase(found);
  }

  mutable std::mutex mutex_;
  std::map<std::string, std::int64_t> waiting_;  // by client, all above 0
  SpeedMeter begins_{0.95};
  double begun_ = 0;                             // since full_since_, or since the last planning
  std::optional<Clock::time_point> full_since_;  // some have to wait
};

}  // namespace troika::serving
