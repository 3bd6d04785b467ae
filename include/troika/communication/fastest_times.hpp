// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <troika/communication/fastest_choice.hpp>

namespace troika {

// How long collectives of some GPUs take each way, for a program that connects the same ones again and again: whoever
// is handed this times them only once. Thread-safe.
class FastestTimes {
 public:
  using Seconds = FastestChoice::Table<float>;

  // `gpus`: of each rank.
  std::optional<Seconds> find(Way way, const std::vector<int>& gpus) const {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find({way, gpus});
    return found == known_.end() ? std::nullopt : std::optional(found->second);
  }
  void keep(Way way, const std::vector<int>& gpus, const Seconds& seconds) {
    const std::lock_guard lock(mutex_);
    known_.insert_or_assign({way, gpus}, seconds);
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<Way, std::vector<int>>, Seconds> known_;
};

}  // namespace troika
