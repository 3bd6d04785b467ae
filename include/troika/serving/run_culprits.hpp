// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <mutex>

#include <troika/core/error.hpp>

namespace troika::serving {

// Which rank of a run is at fault, from what its ranks threw. All members may be called from any thread.
class RunCulprits {
 public:
  // Rank `rank` threw this.
  void note(int rank, const std::exception_ptr& thrown) {
    std::lock_guard lock(mutex_);
    try {
      std::rethrow_exception(thrown);
    } catch (const Error& error) {
      // Who fails because of another says which; who is at fault itself has no rank in its error, or its own.
      if (error.rank() >= 0 && error.rank() != rank) {
        if (suspect_ < 0) suspect_ = error.rank();
      } else if (thrower_ < 0) {
        thrower_ = rank;
        request_to_blame_ = error.fault() == Fault::invalid_argument;
      }
    } catch (...) {
      if (thrower_ < 0) thrower_ = rank;
    }
  }

  // What ran was at fault, and no device.
  bool request_to_blame() const {
    std::lock_guard lock(mutex_);
    return request_to_blame_;
  }
  // The first rank that threw for itself, or -1.
  int thrower() const {
    std::lock_guard lock(mutex_);
    return request_to_blame_ ? -1 : thrower_;
  }
  // The same; or, as a rank that came too late need not know it, the first that others named.
  int failed() const {
    std::lock_guard lock(mutex_);
    return request_to_blame_ ? -1 : thrower_ >= 0 ? thrower_ : suspect_;
  }

 private:
  mutable std::mutex mutex_;
  int thrower_ = -1, suspect_ = -1;
  bool request_to_blame_ = false;
};

}  // namespace troika::serving
