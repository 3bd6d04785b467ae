// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <troika/communication/rank.hpp>
#include <troika/core/dtype.hpp>
#include <troika/core/error.hpp>
#include <troika/device/host/device.hpp>

namespace troika {

// How elements of several ranks become one. Sums of floats add as a binary tree that is split at the largest power of
// two below the number of ranks, ((r0 + r1) + (r2 + r3)) + r4 say, in f32, rounded once to the element type. Sums of
// integers wrap around. A NaN wins a maximum.
enum class Reduction : std::uint8_t { sum, max };

constexpr std::string_view to_string(Reduction reduction) { return reduction == Reduction::sum ? "sum" : "max"; }

struct Root {
  int rank;
};

enum class Operation : std::uint8_t {
  barrier,
  all_reduce,
  all_reduce_norm,
  all_gather,
  reduce_scatter,
  broadcast,
  all_to_all,
  split,
  send,
  recv
};

constexpr std::string_view to_string(Operation operation) {
  constexpr std::string_view names[] = {"barrier",   "all_reduce", "all_reduce_norm", "all_gather", "reduce_scatter",
                                        "broadcast", "all_to_all", "split",           "send",       "recv"};
  return names[static_cast<std::size_t>(operation)];
}

// What a rank says it is calling. Ranks that meet must say the same before any of them writes output.
struct Signature {
  Operation operation = Operation::barrier;
  DType dtype = DType::u8;
  Reduction reduction = Reduction::sum;
  std::int32_t root = -1;    // of a broadcast
  std::uint64_t count = 0;   // elements that each rank puts in; where counts are uneven, of all ranks together
  std::uint64_t layout = 0;  // where counts are uneven, a hash of them; of all_reduce_norm, the elements of a row

  bool operator==(const Signature&) const = default;
};

// One call of one rank, as a transport sees it.
struct Call {
  Signature signature;
  std::uint64_t sequence =
      0;  // number of this collective on its communicator, from 1; of a message, on its pair of ranks
  std::chrono::nanoseconds deadline{};
};

// Why a group of ranks cannot go on. `rank` is the one at fault, numbered in the World also where the group is a part
// of it.
struct Failure {
  Fault fault = Fault::peer_failed;
  int rank = -1;
  std::string what{};
};

// The error that a rank throws about a failure. The operation and sequence number are those of the rank that throws.
inline Error error_of(const Failure& failure, const Call& call) {
  return {failure.fault, failure.what,
          Place{failure.rank, std::string(to_string(call.signature.operation)), call.sequence}};
}

// What every transport gives each rank: a place among its peers, agreement, and messages.
//
// - Bytes are passed with their DType, so that a transport is not a template on the element type.
// - A call throws Error by the deadline at the latest (mismatch, timeout, peer_failed), on every rank of the group.
// After
//   that the group is dead.
// - agree() returns once all ranks have called it with equal signatures. It is also a barrier.
// - send() may wait until the peer receives. A message is checked on both sides: its element type and its size, and
// that
//   both sides are in the same operation, or one in send and the other in recv.
// - split() gives this rank its place among those that named the same color, ordered by key, then by rank.
// - Destroying an endpoint tells the peers that this rank has left.
// - Only one thread at a time may use an endpoint.
template <class E>
concept Endpoint = std::movable<E> && requires(E& endpoint, const E& constant, const Call& call,
                                               std::span<const std::byte> data, std::span<std::byte> buffer, int peer) {
  { constant.rank() } -> std::same_as<int>;
  { constant.world_size() } -> std::same_as<int>;
  { constant.world_rank(peer) } -> std::same_as<int>;  // of a rank of this group
  { endpoint.agree(call) } -> std::same_as<void>;
  { endpoint.send(call, data, peer) } -> std::same_as<void>;
  { endpoint.recv(call, buffer, peer) } -> std::same_as<void>;
  { endpoint.split(call, peer, peer) } -> std::same_as<E>;
};

// A way for bytes to get from rank to rank. `connect` is called by each rank, in the same order on all of them.
template <class T, class D = HostDevice>
concept Transport = std::copyable<T> && requires(T& transport, Rank<D>& rank) {
  { transport.connect(rank) } -> Endpoint;
};

// What an endpoint may do natively, a concept each. What it cannot is composed from messages (compose.hpp). A native
// collective does its own agreement: it checks the signatures of all ranks before it writes any output.
// `in` and `out` are each rank's whole buffers; they start at the same address, or `in` is this rank's own part of
// `out`, or they are disjoint. Counts are in elements, one a rank; empty means that all are equal.
template <class E>
concept HasAllReduce = requires(E& e, const Call& call, const std::byte* in, std::byte* out) {
  e.all_reduce(call, in, out);
};
// A sum over ranks with what follows it in a transformer, each row of d elements: residual += the sum of all y, and y
// becomes RMSNorm(residual) weight. All in memory of the rank's device; nothing overlaps.
struct AddedNorm {
  float* y;
  float* residual;
  const float* weight;  // (d)
  std::size_t rows, d;
  float eps;
};
// In fewer passes over memory than one after the other, with the same bits.
template <class E>
concept HasAllReduceNorm = requires(E& e, const Call& call, const AddedNorm& norm) {
  e.all_reduce_norm(call, norm);
};
template <class E>
concept HasAllGather = requires(E& e, const Call& call, const std::byte* in, std::byte* out,
                                std::span<const std::size_t> counts) {
  e.all_gather(call, in, out, counts);
};
template <class E>
concept HasReduceScatter = requires(E& e, const Call& call, const std::byte* in, std::byte* out,
                                    std::span<const std::size_t> counts) {
  e.reduce_scatter(call, in, out, counts);
};
template <class E>
concept HasBroadcast = requires(E& e, const Call& call, std::byte* data) {
  e.broadcast(call, data);
};
template <class E>
concept HasAllToAll = requires(E& e, const Call& call, const std::byte* in, std::byte* out,
                               std::span<const std::size_t> counts) {
  e.all_to_all(call, in, counts, out, counts);
};

// The endpoint can tell how long it waited for its peers, all in all. Nothing is measured until count_waits(true).
template <class E>
concept CountsWaits = requires(E& e, const E& constant, bool on) {
  e.count_waits(on);
  { constant.waited() } -> std::same_as<std::chrono::nanoseconds>;
};

// The endpoint's bytes are in memory that the calling thread can read and write, so that collectives can be composed
// there.
template <class E>
concept HostMemory = requires {
  requires E::host_memory;
};

struct CommunicationOptions {
  std::chrono::nanoseconds deadline = std::chrono::seconds(30);  // for each call
};

}  // namespace troika
