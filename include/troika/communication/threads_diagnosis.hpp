// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/agreement.hpp>
#include <troika/communication/rank.hpp>
#include <troika/communication/threads_hub.hpp>
#include <troika/communication/transport.hpp>

// Why a rank of a ThreadsHub waits in vain: who has left, who called something else, who is late and whom that one
// waits for.
namespace troika::threads_detail {

// How far the rank that asks has come.
struct Stage {
  std::uint64_t number;
  unsigned parity;  // of the call
};

inline std::string in_words(std::chrono::nanoseconds time) {
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
  return milliseconds % 1000 ? std::to_string(milliseconds) + " ms" : std::to_string(milliseconds / 1000) + " s";
}

// The rank that a chain of waiting ranks waits for; `rank` itself if they wait in a circle.
inline int end_of_chain(ThreadsHub& hub, int rank) {
  int end = rank;
  for (int steps = 0; steps < hub.world_size(); ++steps) {
    const int next = hub.slot(end).waits_for.load(std::memory_order_relaxed);
    if (next < 0) return end;
    end = next;
  }
  return rank;
}

// Who has not arrived at this stage and never will, or is late.
inline std::optional<Failure> absent(ThreadsHub& hub, const World& world, const Stage& stage, const Call& call,
                                     bool late) {
  const auto world_rank = [&](int r) { return hub.world_rank(r); };
  const auto post = [&](int r) -> const ThreadsHub::Post& { return hub.post(r, stage.parity); };
  const auto has_arrived = [&](int r) { return post(r).stage.load(std::memory_order_seq_cst) >= stage.number; };
  for (int r = 0; r < hub.world_size(); ++r) {
    if (hub.slot(r).left.load(std::memory_order_seq_cst) && !has_arrived(r)) return departure(world, world_rank(r));
  }
  if (!late) return std::nullopt;
  std::vector<int> here, missing;
  for (int r = 0; r < hub.world_size(); ++r) (has_arrived(r) ? here : missing).push_back(r);
  if (missing.empty()) return std::nullopt;
  if (auto wrong = find_mismatch(
          static_cast<int>(here.size()),
          [&](int i) -> const Signature& { return post(here[static_cast<std::size_t>(i)]).signature; },
          [&](int i) { return world_rank(here[static_cast<std::size_t>(i)]); })) {
    return wrong;
  }
  const int guilty = end_of_chain(hub, missing.front());
  std::string text = missing.size() == 1 ? "rank " : "ranks ";
  for (const int r : missing) text += (r == missing.front() ? "" : ", ") + std::to_string(world_rank(r));
  text += " did not arrive within " + in_words(call.deadline);
  if (guilty != missing.front()) {
    text += "; rank " + std::to_string(world_rank(missing.front())) + " waits for rank " +
            std::to_string(world_rank(guilty));
  }
  return Failure{Fault::timeout, world_rank(guilty), std::move(text)};
}

// Why no message comes or goes.
inline std::optional<Failure> silent(ThreadsHub& hub, const World& world, const Stage& stage, const Call& call,
                                     int rank, int peer, bool late) {
  const auto world_rank = [&](int r) { return hub.world_rank(r); };
  const unsigned next_parity = stage.parity ^ 1u;
  if (hub.slot(peer).left.load(std::memory_order_seq_cst)) return departure(world, world_rank(peer));
  // A peer that waits in a collective that this rank has not joined will not answer before this rank joins it.
  const auto& next = hub.post(peer, next_parity);
  if (next.stage.load(std::memory_order_seq_cst) > stage.number) {
    // What most ranks do is right. Those that are in neither are still to come, and may decide it.
    int joined = 0, in_messages = 0;
    for (int r = 0; r < hub.world_size(); ++r) {
      if (hub.post(r, next_parity).stage.load(std::memory_order_seq_cst) > stage.number)
        ++joined;
      else
        in_messages += hub.slot(r).waits_for.load(std::memory_order_relaxed) >= 0;
    }
    const int undecided = hub.world_size() - joined - in_messages;
    const bool certain = std::max(joined, in_messages) > std::min(joined, in_messages) + undecided || undecided == 0;
    if (!certain && !late) return std::nullopt;
    const bool blame_peer = joined < in_messages || (joined == in_messages && rank == 0);
    return Failure{Fault::mismatch, world_rank(blame_peer ? peer : rank),
                   "rank " + std::to_string(world_rank(rank)) + " called " + describe(call.signature) +
                       (call.signature.operation == Operation::send ? " to" : " from") + " rank " +
                       std::to_string(world_rank(peer)) + ", which called " + describe(next.signature)};
  }
  if (!late) return std::nullopt;
  const int guilty = end_of_chain(hub, peer);
  return Failure{Fault::timeout, world_rank(guilty),
                 "rank " + std::to_string(world_rank(peer)) + " did not " +
                     (call.signature.operation == Operation::send ? "receive" : "send") + " within " +
                     in_words(call.deadline)};
}

}  // namespace troika::threads_detail
