// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace troika {

// Work per second, the latest measurements counting most. Weighed by time, so that a short noisy one moves little. Not
// thread-safe.
class SpeedMeter {
 public:
  // `keep`: how much of the past stays with each measurement, from 0 to below 1.
  explicit SpeedMeter(double keep) : keep_(keep) {}

  void add(double work, double seconds) {
    work_ = keep_ * work_ + work;
    seconds_ = keep_ * seconds_ + seconds;
  }
  // 0 before the first measurement.
  double speed() const { return seconds_ > 0 ? work_ / seconds_ : 0; }

 private:
  double keep_;
  double work_ = 0, seconds_ = 0;
};

}  // namespace troika
