// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace troika::recording {

// What has happened before something: of each actor (a stream, or a thread of the host), how many of its things.
class Clock {
 public:
  std::uint64_t of(std::size_t actor) const { return actor < ticks_.size() ? ticks_[actor] : 0; }
  void tick(std::size_t actor) { ++at(actor); }
  void join(const Clock& other) {
    for (std::size_t i = 0; i < other.ticks_.size(); ++i) at(i) = std::max(at(i), other.ticks_[i]);
  }

 private:
  std::uint64_t& at(std::size_t actor) {
    if (actor >= ticks_.size()) ticks_.resize(actor + 1);
    return ticks_[actor];
  }
  std::vector<std::uint64_t> ticks_;
};

// Who touched which bytes of one allocation, and whether each two that touched the same, one of them writing, are in an
// order.
class Touches {
 public:
  struct Touch {
    std::size_t begin, end, actor;
    bool writes;
    Clock clock;
    const char* what;
  };

  // What it races with, or null.
  const char* add(Touch touch) {
    const char* raced = nullptr;
    for (const Touch& other : touches_) {
      const bool same = other.begin < touch.end && touch.begin < other.end && (other.writes || touch.writes);
      if (same && !before(other, touch) && !before(touch, other)) raced = other.what;
    }
    // What the same actor did to the same bytes in the same way is told by this one, too.
    std::erase_if(touches_, [&](const Touch& other) {
      return other.actor == touch.actor && other.begin >= touch.begin && other.end <= touch.end &&
             (touch.writes || !other.writes);
    });
    touches_.push_back(std::move(touch));
    return raced;
  }

 private:
  static bool before(const Touch& a, const Touch& b) { return a.clock.of(a.actor) <= b.clock.of(a.actor); }

  std::vector<Touch> touches_;
};

}  // namespace troika::recording
