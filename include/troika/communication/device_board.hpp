// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/rank.hpp>
#include <troika/communication/transport.hpp>

namespace troika {

// Where the ranks of one process post why their devices cannot go on. What a device does late or wrong is seen long
// after the call that asked for it, by whoever looks next: everyone looks here. Thread-safe.
class DeviceBoard {
 public:
  // The same board for all ranks of the world, and for all groups that are split from it.
  static std::shared_ptr<DeviceBoard> of(int rank, World& world) {
    return world.meet<DeviceBoard>(rank, [&] { return std::make_shared<DeviceBoard>(world.size()); });
  }
  explicit DeviceBoard(int world_size) : inside_(static_cast<std::size_t>(world_size)) {}

  // The first failure stays; all ranks report it.
  void fail(Failure failure) {
    std::lock_guard lock(mutex_);
    if (failed()) return;
    failure_ = std::move(failure);
    failed_.store(true, std::memory_order_release);
  }
  bool failed() const noexcept { return failed_.load(std::memory_order_acquire); }
  const Failure& failure() const { return failure_; }  // once failed()

  // The failure of this board or of the world, which is then posted here, too.
  std::optional<Failure> trouble(const World& world) {
    if (!failed() && world.failed()) {
      const int rank = world.failed_rank();
      fail({Fault::peer_failed, rank, "rank " + std::to_string(rank) + " failed: " + world.failure()});
    }
    if (!failed()) return std::nullopt;
    return failure_;
  }

  // How many collectives the device of a rank is inside of, `more` of them since the last call. A device that is in
  // none while others wait in theirs is the one that they wait for.
  void enter(int world_rank, int more) { inside_[static_cast<std::size_t>(world_rank)].fetch_add(more); }
  bool is_inside(int world_rank) const { return inside_[static_cast<std::size_t>(world_rank)].load() > 0; }

 private:
  std::mutex mutex_;
  std::atomic<bool> failed_{false};
  Failure failure_;
  std::vector<std::atomic<int>> inside_;
};

}  // namespace troika
