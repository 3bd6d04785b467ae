// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <troika/communication/transport.hpp>

namespace troika {

// "all_reduce (sum) of 16 f32"
inline std::string describe(const Signature& signature) {
  std::string text(to_string(signature.operation));
  switch (signature.operation) {
    case Operation::barrier:
    case Operation::split: return text;
    case Operation::all_to_all: return text + " of " + std::string(to_string(signature.dtype));
    case Operation::all_reduce:
    case Operation::reduce_scatter: text += " (" + std::string(to_string(signature.reduction)) + ")"; break;
    case Operation::broadcast: text += " from root " + std::to_string(signature.root); break;
    default: break;
  }
  text += " of " + std::to_string(signature.count) + " " + std::string(to_string(signature.dtype));
  if (signature.layout) text += " in uneven counts";
  return text;
}

// Looks for ranks that say something else than their peers. The rank at fault is the lowest that is not with the
// majority; among equal parties, the one that holds the lowest rank counts as the majority. `signature_of(r)` and
// `world_rank(r)` are asked for each rank of the group; every rank comes to the same answer.
template <class SignatureOf, class WorldRank>
std::optional<Failure> find_mismatch(int world_size, SignatureOf&& signature_of, WorldRank&& world_rank) {
  bool equal = true;
  const Signature& first = signature_of(0);
  for (int r = 1; r < world_size; ++r) equal &= signature_of(r) == first;
  if (equal) [[likely]]
    return std::nullopt;

  int right = 0, most = 0;
  for (int r = 0; r < world_size; ++r) {
    int votes = 0;
    for (int other = 0; other < world_size; ++other) votes += signature_of(other) == signature_of(r);
    if (votes > most) right = r, most = votes;
  }
  const Signature& majority = signature_of(right);
  int wrong = 0;
  while (signature_of(wrong) == majority) ++wrong;

  std::string text = "ranks called different collectives: rank " + std::to_string(world_rank(wrong)) + " called " +
                     describe(signature_of(wrong)) + ", rank " + std::to_string(world_rank(right)) + " called " +
                     describe(majority);
  if (signature_of(wrong).layout != majority.layout && signature_of(wrong).count == majority.count) {
    text += " (the counts per rank differ)";
  }
  return Failure{Fault::mismatch, world_rank(wrong), std::move(text)};
}

// Both sides of a message: in the same operation, or one in send and the other in recv, with one element type and size.
inline bool is_one_message(const Signature& sent, const Signature& expected) {
  return sent.dtype == expected.dtype && sent.count == expected.count &&
         ((sent.operation == Operation::send && expected.operation == Operation::recv) ||
          (sent.operation == expected.operation && sent.operation != Operation::send &&
           sent.operation != Operation::recv));
}

inline Failure message_mismatch(int from, const Signature& sent, int to, const Signature& expected) {
  return {Fault::mismatch, from,
          "rank " + std::to_string(from) + " called " + describe(sent) + " to rank " + std::to_string(to) +
              ", which called " + describe(expected)};
}

// all_to_all: what rank i sends to rank j must be what j expects. Blames the rank with the most wrong pairs, the
// highest among equals: as above, the lowest rank counts as right. `sends(i, j)`: elements that i sends to j;
// `expects(i, j)`: elements that j expects from i.
template <class Sends, class Expects, class WorldRank>
std::optional<Failure> find_uneven_exchange(int world_size, Sends&& sends, Expects&& expects, WorldRank&& world_rank) {
  const auto wrong = [&](int i, int j) { return sends(i, j) != expects(i, j); };
  int worst = -1, most = 0;
  for (int r = 0; r < world_size; ++r) {
    int pairs = wrong(r, r) ? 1 : 0;
    for (int other = 0; other < world_size; ++other) {
      if (other != r) pairs += wrong(r, other) + wrong(other, r);
    }
    if (pairs >= most && pairs > 0) worst = r, most = pairs;
  }
  if (worst < 0) [[likely]]
    return std::nullopt;
  for (int i = 0; i < world_size; ++i) {
    for (int j = 0; j < world_size; ++j) {
      if ((i != worst && j != worst) || !wrong(i, j)) continue;
      return Failure{Fault::mismatch, world_rank(worst),
                     "rank " + std::to_string(world_rank(i)) + " sends " + std::to_string(sends(i, j)) +
                         " elements to rank " + std::to_string(world_rank(j)) + ", which expects " +
                         std::to_string(expects(i, j))};
    }
  }
  return std::nullopt;
}

// A rank will not come any more: it returned, or it threw.
inline Failure departure(const World& world, int rank) {
  const int guilty = world.at_fault(rank);
  std::string text = "rank " + std::to_string(rank) + " has left";
  if (guilty != rank) text += " because of rank " + std::to_string(guilty);
  return {Fault::peer_failed, guilty, std::move(text)};
}

// Hash of counts per rank, never 0.
inline std::uint64_t layout_of(std::span<const std::size_t> counts) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const auto count : counts) {
    hash = (hash ^ count) * 0x100000001b3u;
    hash ^= hash >> 29;
  }
  return hash | 1u;
}

}  // namespace troika
