// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>

namespace troika {

// When a device is no longer trusted with tasks, and for how long.
struct QuarantineRules {
  int failures = 2;                           // so many in a row put a device in quarantine
  std::chrono::milliseconds first{1000};      // until it is tried again, with one task
  std::chrono::milliseconds longest{60'000};  // each failed try doubles the time, up to this
};

// What is known of the reliability of one device. Not thread-safe.
class DeviceHealth {
 public:
  using Time = std::chrono::steady_clock::time_point;

  bool healthy() const { return !quarantined_; }
  // Nothing on record: a success changes nothing.
  bool spotless() const { return strikes_ == 0 && !quarantined_; }
  Time last_failure() const { return last_failure_; }
  std::chrono::milliseconds back_off() const { return back_off_; }

  // Time for the one task that shows whether the device works again.
  bool due(Time now) const { return quarantined_ && !probing_ && now >= retry_at_; }
  void begin_probe() { probing_ = true; }

  // A failure that nobody blames on the device yet.
  void noticed(Time now) { last_failure_ = now; }

  // A failure of the device. True when it goes into quarantine, or back into it.
  bool failed(Time now, bool probe, const QuarantineRules& rules) {
    ++strikes_;
    last_failure_ = now;
    if (quarantined_) {
      if (probe) {
        probing_ = false;
        back_off_ = std::min(2 * back_off_, rules.longest);
      }
      retry_at_ = now + back_off_;
      return probe;
    }
    if (strikes_ < rules.failures) return false;
    quarantined_ = true;
    back_off_ = rules.first;
    retry_at_ = now + back_off_;
    return true;
  }

  // True when this ends a quarantine.
  bool succeeded() {
    const bool healed = quarantined_;
    strikes_ = 0;
    quarantined_ = probing_ = false;
    return healed;
  }

 private:
  int strikes_ = 0;  // failures since the last success
  bool quarantined_ = false, probing_ = false;
  Time last_failure_{}, retry_at_{};
  std::chrono::milliseconds back_off_{0};
};

}  // namespace troika
