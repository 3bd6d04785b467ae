// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/agreement.hpp>
#include <troika/communication/reduce.hpp>
#include <troika/communication/transport.hpp>

namespace troika {

// Collectives out of agree, send and recv, for transports that lack them. Correct over any order in which messages
// move, also where send waits for the peer; the same numbers as every other transport, because sums are formed by
// reduce().
//
// All ranks exchange in pairs: in round k, rank r meets rank (k - r) mod n, and the lower one of them speaks first.
template <Endpoint E>
class Composed {
 public:
  // `scratch` grows as needed and keeps its size: the steady state does not allocate.
  Composed(E& endpoint, std::vector<std::byte>& scratch) : endpoint_(endpoint), scratch_(scratch) {}

  void all_reduce(const Call& call, const std::byte* in, std::byte* out) {
    endpoint_.agree(call);
    const std::size_t size = size_of(call.signature.dtype), count = call.signature.count, n = ranks();
    const auto begin_of = [&](int r) { return count * static_cast<std::size_t>(r) / n * size; };
    reduce_parts(call, in, out + begin_of(endpoint_.rank()), begin_of);
    gather_parts(call, out, begin_of);
  }

  void all_gather(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts) {
    endpoint_.agree(call);
    const auto begin_of = parts(call, counts);
    const int me = endpoint_.rank();
    copy(out + begin_of(me), in, begin_of(me + 1) - begin_of(me));
    gather_parts(call, out, begin_of);
  }

  void reduce_scatter(const Call& call, const std::byte* in, std::byte* out, std::span<const std::size_t> counts) {
    endpoint_.agree(call);
    reduce_parts(call, in, out, parts(call, counts));
  }

  // A binomial tree below the root.
  void broadcast(const Call& call, std::byte* data) {
    endpoint_.agree(call);
    const std::size_t bytes = call.signature.count * size_of(call.signature.dtype);
    const int n = endpoint_.world_size(), root = call.signature.root;
    if (bytes == 0) return;
    const int place = (endpoint_.rank() - root + n) % n;
    int reach = 1;
    while (reach < n && !(place & reach)) reach *= 2;
    if (place) endpoint_.recv(call, {data, bytes}, (place - reach + root) % n);
    for (reach /= 2; reach >= 1; reach /= 2) {
      if (place + reach < n) endpoint_.send(call, {data, bytes}, (place + reach + root) % n);
    }
  }

  void all_to_all(const Call& call, const std::byte* in, std::span<const std::size_t> send_counts, std::byte* out,
                  std::span<const std::size_t> recv_counts) {
    endpoint_.agree(call);
    check_exchange(call, send_counts, recv_counts);
    const std::size_t size = size_of(call.signature.dtype);
    const auto begin = [&](std::span<const std::size_t> counts, int r) {
      return std::accumulate(counts.begin(), counts.begin() + r, std::size_t{0}) * size;
    };
    each_pair([&](int peer) {
      const auto p = static_cast<std::size_t>(peer);
      const std::span<const std::byte> sent{in + begin(send_counts, peer), send_counts[p] * size};
      const std::span<std::byte> received{out + begin(recv_counts, peer), recv_counts[p] * size};
      if (peer == endpoint_.rank())
        copy(received.data(), sent.data(), sent.size());
      else
        exchange(call, sent, received, peer);
    });
  }

  // Every rank learns the counts of all, so that all find the same rank at fault before any output is written. Gives
  // the largest.
  std::size_t check_exchange(const Call& call, std::span<const std::size_t> send_counts,
                             std::span<const std::size_t> recv_counts) {
    const std::size_t n = ranks(), row = 2 * n * sizeof(std::size_t);
    const int me = endpoint_.rank();
    grow(n * row);
    const auto row_of = [&](int r) { return scratch_.data() + static_cast<std::size_t>(r) * row; };
    std::memcpy(row_of(me), send_counts.data(), row / 2);
    std::memcpy(row_of(me) + row / 2, recv_counts.data(), row / 2);
    each_pair([&](int peer) {
      if (peer != me) exchange(call, {row_of(me), row}, {row_of(peer), row}, peer);
    });
    const auto count = [&](int r, std::size_t column) {
      std::size_t value;
      std::memcpy(&value, row_of(r) + column * sizeof value, sizeof value);
      return value;
    };
    const auto wrong = find_uneven_exchange(
        endpoint_.world_size(), [&](int i, int j) { return count(i, static_cast<std::size_t>(j)); },
        [&](int i, int j) { return count(j, n + static_cast<std::size_t>(i)); },
        [&](int r) { return endpoint_.world_rank(r); });
    if (wrong) throw error_of(*wrong, call);
    std::size_t largest = 0;
    for (std::size_t i = 0; i < 2 * n * n; ++i) largest = std::max(largest, count(0, i));
    return largest;
  }

 private:
  std::size_t ranks() const { return static_cast<std::size_t>(endpoint_.world_size()); }
  static void copy(std::byte* to, const std::byte* from, std::size_t bytes) {
    if (bytes && to != from) std::memcpy(to, from, bytes);
  }

  // Offset in bytes of each rank's part; of world_size, the end.
  static auto parts(const Call& call, std::span<const std::size_t> counts) {
    const std::size_t size = size_of(call.signature.dtype), equal = call.signature.count;
    return [=](int r) {
      if (counts.empty()) return equal * static_cast<std::size_t>(r) * size;
      return std::accumulate(counts.begin(), counts.begin() + r, std::size_t{0}) * size;
    };
  }

  template <class F>
  void each_pair(F&& meet) {
    const int n = endpoint_.world_size();
    for (int round = 0; round < n; ++round) meet((round - endpoint_.rank() + n) % n);
  }

  void exchange(const Call& call, std::span<const std::byte> sent, std::span<std::byte> received, int peer) {
    const bool first = endpoint_.rank() < peer;
    if (first && !sent.empty()) endpoint_.send(call, sent, peer);
    if (!received.empty()) endpoint_.recv(call, received, peer);
    if (!first && !sent.empty()) endpoint_.send(call, sent, peer);
  }

  // out: this rank's part, reduced over all ranks. It is written when all that is to be sent of `in` has been sent.
  template <class Begin>
  void reduce_parts(const Call& call, const std::byte* in, std::byte* out, const Begin& begin_of) {
    const int me = endpoint_.rank();
    const std::size_t begin = begin_of(me), bytes = begin_of(me + 1) - begin;
    // First the pointers to all inputs of the part, then what is received.
    const std::size_t pointers = ranks() * sizeof(const std::byte*);
    grow(pointers + ranks() * bytes);
    auto* inputs = reinterpret_cast<const std::byte**>(scratch_.data());
    each_pair([&](int peer) {
      const auto p = static_cast<std::size_t>(peer);
      std::byte* const received = scratch_.data() + pointers + p * bytes;
      inputs[p] = peer == me ? in + begin : received;
      if (peer == me) return;
      const std::size_t theirs = begin_of(peer);
      exchange(call, {in + theirs, begin_of(peer + 1) - theirs}, {received, bytes}, peer);
    });
    const auto& signature = call.signature;
    reduce(signature.dtype, signature.reduction, {inputs, ranks()}, std::span(&out, 1), 0,
           bytes / size_of(signature.dtype));
  }

  // out holds this rank's part; afterwards those of all.
  template <class Begin>
  void gather_parts(const Call& call, std::byte* out, const Begin& begin_of) {
    const int me = endpoint_.rank();
    each_pair([&](int peer) {
      if (peer == me) return;
      exchange(call, {out + begin_of(me), begin_of(me + 1) - begin_of(me)},
               {out + begin_of(peer), begin_of(peer + 1) - begin_of(peer)}, peer);
    });
  }

  void grow(std::size_t bytes) {
    if (scratch_.size() < bytes) scratch_.resize(bytes);
  }

  E& endpoint_;
  std::vector<std::byte>& scratch_;
};

}  // namespace troika
