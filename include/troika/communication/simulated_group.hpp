// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <troika/communication/agreement.hpp>
#include <troika/communication/transport.hpp>

namespace troika {

// A group of simulated ranks: who has arrived at the agreement in progress, and the messages under way. SimulatedCore
// guards it.
struct SimulatedGroup {
  struct Arrival {
    bool here = false, left = false;
    Signature signature{};
    double time = 0, deadline = 0;
    int color = 0, key = 0;
    std::shared_ptr<SimulatedGroup> part{};  // the group that this rank split into
  };
  // Whichever side comes first leaves its half here and waits.
  struct Message {
    bool here = false;
    Signature signature{};
    const std::byte* data = nullptr;
    std::byte* buffer = nullptr;
    std::size_t size = 0;
  };
  std::vector<int> world_ranks;
  std::vector<Arrival> arrivals;
  std::vector<Message> messages;  // from * ranks + to
  std::uint64_t agreements = 0;
  int here = 0;
  std::optional<Failure> failure{};

  explicit SimulatedGroup(std::vector<int> ranks)
      : world_ranks(std::move(ranks)),
        arrivals(world_ranks.size()),
        messages(world_ranks.size() * world_ranks.size()) {}
  int size() const { return static_cast<int>(world_ranks.size()); }
  Arrival& arrival(int rank) { return arrivals[static_cast<std::size_t>(rank)]; }
  Message& message(int from, int to) { return messages[static_cast<std::size_t>(from * size() + to)]; }
  int world_rank(int rank) const { return world_ranks[static_cast<std::size_t>(rank)]; }
};

// Cuts a group whose ranks have all arrived with their colours and keys; each arrival gets its part.
inline std::vector<std::shared_ptr<SimulatedGroup>> make_parts(SimulatedGroup& group) {
  std::vector<std::shared_ptr<SimulatedGroup>> parts;
  for (int first = 0; first < group.size(); ++first) {
    if (group.arrival(first).part) continue;
    std::vector<int> members;
    for (int r = first; r < group.size(); ++r) {
      if (group.arrival(r).color == group.arrival(first).color) members.push_back(r);
    }
    std::ranges::stable_sort(members, {}, [&](int r) { return group.arrival(r).key; });
    std::vector<int> world_ranks;
    for (const int r : members) world_ranks.push_back(group.world_rank(r));
    parts.push_back(std::make_shared<SimulatedGroup>(std::move(world_ranks)));
    for (const int r : members) group.arrival(r).part = parts.back();
  }
  return parts;
}

}  // namespace troika
