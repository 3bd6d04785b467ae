// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <troika/communication/agreement.hpp>
#include <troika/communication/compose.hpp>
#include <troika/communication/counters.hpp>
#include <troika/communication/rank.hpp>
#include <troika/communication/transport.hpp>
#include <troika/core/dtype.hpp>
#include <troika/core/error.hpp>
#include <troika/observe/trace.hpp>

namespace troika {

// The collectives of one rank with its peers. All ranks of the group call the same collectives in the same order.
//
// - Wrong arguments throw before anything is sent, and the communication goes on.
// - Everything else that goes wrong (ranks that call different things, a rank that is late, failed or gone) throws
// Error on
//   every rank of the group: Error::rank() is the World rank at fault, operation and sequence are those of the call
//   that threw. After that the communication is dead: every call throws.
// - Outputs hold nothing useful after an error; after a mismatch they are untouched.
// - Buffers are in memory of the rank's device or of the host, both of a call in the same.
// - `in` and `out` may overlap. They are read and written in place where they start at the same address, or where `in`
// is
//   this rank's own part of `out` or the other way round; otherwise `in` is copied first.
// - Moves only; one thread at a time.
template <class T, Device D = HostDevice>
requires Transport<T, D>
class Communication {
  using EndpointOfT = decltype(std::declval<T&>().connect(std::declval<Rank<D>&>()));

 public:
  using Device = D;

  Communication(Rank<D>& rank, T transport, CommunicationOptions options = {})
      : Communication(transport.connect(rank), checked(options), rank.track(Lane::communication), rank.device()) {}

  // Of this rank; others may have devices of another kind.
  D& device() const { return *device_; }

  int rank() const { return endpoint_.rank(); }
  int world_size() const { return endpoint_.world_size(); }
  // This rank's number among all ranks, also where the group is a part of them.
  int world_rank() const { return endpoint_.world_rank(endpoint_.rank()); }
  // Collectives called so far.
  std::uint64_t sequence() const { return sequence_; }
  // From here on calls that end well are added to these, which outlive the communication and those that are split from
  // it; null: to none. They have one writer: who shares them shares a thread.
  void count(CommunicationCounters* counters) {
    counters_ = counters;
    if constexpr (CountsWaits<EndpointOfT>) endpoint_.count_waits(counters != nullptr);
  }

  void barrier() {
    perform(Signature{.operation = Operation::barrier}, 0, [&](const Call& call) { endpoint_.agree(call); });
  }

  // out[i] = in[i] of all ranks, reduced.
  template <Element E>
  requires(!std::is_const_v<E>) void all_reduce(std::span<E> in_out, Reduction reduction = Reduction::sum) {
    all_reduce<E>(std::span<const E>(in_out), in_out, reduction);
  }
  template <Element E>
  requires(!std::is_const_v<E>) void all_reduce(std::type_identity_t<std::span<const E>> in, std::span<E> out,
                                                Reduction reduction = Reduction::sum) {
    expects(in.size() == out.size(), [&] { return sizes("all_reduce", in.size(), out.size(), in.size()); });
    const Signature signature{
        .operation = Operation::all_reduce, .dtype = dtype_of<E>, .reduction = reduction, .count = in.size()};
    perform(signature, in.size_bytes(), [&](const Call& call) {
      const std::byte* from = readable(in, out, in.data() == out.data());
      if constexpr (HasAllReduce<EndpointOfT>)
        endpoint_.all_reduce(call, from, bytes(out));
      else
        composed().all_reduce(call, from, bytes(out));
    });
  }

  // Whether sum, residual and norm are one operation of this transport; else they are called one after the other.
  static constexpr bool has_all_reduce_norm = HasAllReduceNorm<EndpointOfT>;
  // For rows of as many elements as weight has: residual += y of all ranks; y = RMSNorm(residual) weight. The bits of
  // all_reduce, add and rms_norm; in memory of the rank's device.
  void all_reduce_norm(std::span<float> y, std::span<float> residual, std::span<const float> weight,
                       float eps) requires has_all_reduce_norm {
    const std::size_t d = weight.size();
    expects(d > 0 && y.size() % d == 0 && residual.size() == y.size(), [&] {
      return "all_reduce_norm takes y and residual of whole rows of weight, not " + std::to_string(y.size()) + ", " +
             std::to_string(residual.size()) + " and " + std::to_string(d) + " elements";
    });
    const Signature signature{
        .operation = Operation::all_reduce_norm, .dtype = DType::f32, .count = y.size(), .layout = d};
    perform(signature, y.size_bytes(), [&](const Call& call) {
      endpoint_.all_reduce_norm(call, {y.data(), residual.data(), weight.data(), y.size() / d, d, eps});
    });
  }

  // out = in of rank 0, in of rank 1, ...
  template <Element E>
  requires(!std::is_const_v<E>) void all_gather(std::type_identity_t<std::span<const E>> in, std::span<E> out) {
    expects(in.size() * ranks() == out.size(),
            [&] { return sizes("all_gather", in.size(), out.size(), in.size() * ranks()); });
    gather(in, out, {}, in.size() * static_cast<std::size_t>(rank()));
  }
  template <Element E>
  requires(!std::is_const_v<E>) void all_gather(std::type_identity_t<std::span<const E>> in, std::span<E> out,
                                                std::span<const std::size_t> counts) {
    check_counts("all_gather", counts, in.size(), out.size(), "in", "out");
    gather(in, out, counts, begin_of(counts));
  }

  // out = this rank's part of the reduced in.
  template <Element E>
  requires(!std::is_const_v<E>) void reduce_scatter(std::type_identity_t<std::span<const E>> in, std::span<E> out,
                                                    Reduction reduction = Reduction::sum) {
    expects(out.size() * ranks() == in.size(),
            [&] { return sizes("reduce_scatter", in.size(), out.size(), in.size() / ranks()); });
    scatter(in, out, {}, out.size() * static_cast<std::size_t>(rank()), reduction);
  }
  template <Element E>
  requires(!std::is_const_v<E>) void reduce_scatter(std::type_identity_t<std::span<const E>> in, std::span<E> out,
                                                    std::span<const std::size_t> counts,
                                                    Reduction reduction = Reduction::sum) {
    check_counts("reduce_scatter", counts, out.size(), in.size(), "out", "in");
    scatter(in, out, counts, begin_of(counts), reduction);
  }

  // data = data of the root.
  template <Element E>
  requires(!std::is_const_v<E>) void broadcast(std::span<E> data, Root root) {
    check_peer("root", root.rank);
    const Signature signature{
        .operation = Operation::broadcast, .dtype = dtype_of<E>, .root = root.rank, .count = data.size()};
    perform(signature, data.size_bytes(), [&](const Call& call) {
      if constexpr (HasBroadcast<EndpointOfT>)
        endpoint_.broadcast(call, bytes(data));
      else
        composed().broadcast(call, bytes(data));
    });
  }

  // The r-th part of `in` goes to rank r; the r-th part of `out` comes from rank r.
  template <Element E>
  requires(!std::is_const_v<E>) void all_to_all(std::type_identity_t<std::span<const E>> in,
                                                std::span<const std::size_t> send_counts, std::span<E> out,
                                                std::span<const std::size_t> recv_counts) {
    check_counts("all_to_all", send_counts, std::nullopt, in.size(), "", "in");
    check_counts("all_to_all", recv_counts, std::nullopt, out.size(), "", "out");
    perform(Signature{.operation = Operation::all_to_all, .dtype = dtype_of<E>}, in.size_bytes(),
            [&](const Call& call) {
              const std::byte* from = readable(in, out, false);
              if constexpr (HasAllToAll<EndpointOfT>) {
                endpoint_.all_to_all(call, from, send_counts, bytes(out), recv_counts);
              } else {
                composed().all_to_all(call, from, send_counts, bytes(out), recv_counts);
              }
            });
  }

  // send may wait until the peer receives: two ranks that exchange must not both send first. Sequence numbers count the
  // messages of each direction of a pair.
  template <Element E>
  void send(std::span<E> data, int peer) {
    check_peer("peer of send", peer);
    check_not_self(peer);
    message(Signature{.operation = Operation::send, .dtype = dtype_of<E>, .count = data.size()}, sent_, peer,
            data.size_bytes(), [&](const Call& call) { endpoint_.send(call, std::as_bytes(data), peer); });
  }
  template <Element E>
  requires(!std::is_const_v<E>) void recv(std::span<E> data, int peer) {
    check_peer("peer of recv", peer);
    check_not_self(peer);
    message(Signature{.operation = Operation::recv, .dtype = dtype_of<E>, .count = data.size()}, received_, peer,
            data.size_bytes(), [&](const Call& call) { endpoint_.recv(call, std::as_writable_bytes(data), peer); });
  }

  // One communication for each color, over the ranks that named it, ordered by key and then by rank. Failures of any
  // rank of the World reach all groups.
  Communication split(int color, int key) {
    expects(color >= 0, [&] { return "split: a color is 0 or more, not " + std::to_string(color); });
    std::optional<Communication> part;
    perform(Signature{.operation = Operation::split}, 0, [&](const Call& call) {
      part.emplace(Communication(endpoint_.split(call, color, key), options_, track_, *device_));
      part->count(counters_);
    });
    return std::move(*part);
  }

 private:
  Communication(EndpointOfT endpoint, CommunicationOptions options, Trace::Track* track, D& device)
      : endpoint_(std::move(endpoint)),
        options_(options),
        track_(track),
        device_(&device),
        sent_(ranks()),
        received_(ranks()) {}

  static const CommunicationOptions& checked(const CommunicationOptions& options) {
    expects(options.deadline.count() > 0, "the deadline of a communication must be above zero");
    return options;
  }

  std::size_t ranks() const { return static_cast<std::size_t>(endpoint_.world_size()); }
  template <class E>
  static std::byte* bytes(std::span<E> data) {
    return reinterpret_cast<std::byte*>(data.data());
  }

  auto composed() {
    static_assert(HostMemory<EndpointOfT>, "this transport neither does this collective nor lets it be composed");
    return Composed<EndpointOfT>(endpoint_, scratch_);
  }

  template <class E>
  void gather(std::span<const E> in, std::span<E> out, std::span<const std::size_t> counts, std::size_t begin) {
    const Signature signature =
        with_counts({.operation = Operation::all_gather, .dtype = dtype_of<E>}, counts, in.size());
    perform(signature, out.size_bytes(), [&](const Call& call) {
      const std::byte* from = readable(in, out, in.data() == out.data() + begin);
      if (!signature.layout) counts = {};
      if constexpr (HasAllGather<EndpointOfT>)
        endpoint_.all_gather(call, from, bytes(out), counts);
      else
        composed().all_gather(call, from, bytes(out), counts);
    });
  }

  template <class E>
  void scatter(std::span<const E> in, std::span<E> out, std::span<const std::size_t> counts, std::size_t begin,
               Reduction reduction) {
    const Signature signature = with_counts(
        {.operation = Operation::reduce_scatter, .dtype = dtype_of<E>, .reduction = reduction}, counts, out.size());
    perform(signature, in.size_bytes(), [&](const Call& call) {
      const std::byte* from = readable(in, out, out.data() == in.data() + begin);
      if (!signature.layout) counts = {};
      if constexpr (HasReduceScatter<EndpointOfT>)
        endpoint_.reduce_scatter(call, from, bytes(out), counts);
      else
        composed().reduce_scatter(call, from, bytes(out), counts);
    });
  }

  template <class F>
  void perform(const Signature& signature, std::size_t size, F&& f) {
    run(Call{signature, ++sequence_, options_.deadline}, size, f);
  }
  template <class F>
  void message(const Signature& signature, std::vector<std::uint64_t>& numbers, int peer, std::size_t size, F&& f) {
    run(Call{signature, ++numbers[static_cast<std::size_t>(peer)], options_.deadline}, size, f);
  }
  template <class F>
  void run(const Call& call, std::size_t size, F&& f) {
    if (ended_) [[unlikely]]
      throw error_of(*ended_, call);
    const Span span(track_, to_string(call.signature.operation), size);
    try {
      if (counters_)
        counted(call.signature.operation, size, [&] { f(call); });
      else
        f(call);
    } catch (const Error& error) {
      ended_ = Failure{error.fault(), error.rank(), std::string("the communication has ended: ") + error.what()};
      throw;
    } catch (const std::exception& error) {
      ended_ = Failure{Fault::peer_failed, rank(), std::string("the communication has ended: ") + error.what()};
      throw;
    }
  }

  template <class F>
  void counted(Operation operation, std::size_t size, F&& f) {
    using Clock = std::chrono::steady_clock;
    const auto waited = [&] {
      if constexpr (CountsWaits<EndpointOfT>)
        return endpoint_.waited();
      else
        return std::chrono::nanoseconds(0);
    };
    const auto waited_before = waited();
    const auto begin = Clock::now();
    f();
    counters_->add(operation, size, Clock::now() - begin, waited() - waited_before);
  }

  // The data of `in`, or a copy of it where `in` overlaps with `out` otherwise than a transport can work in place.
  template <class E>
  const std::byte* readable(std::span<const E> in, std::span<E> out, bool in_place) {
    const auto* data = reinterpret_cast<const std::byte*>(in.data());
    const std::less<const E*> before;
    const bool disjoint = in.empty() || out.empty() || !before(in.data(), out.data() + out.size()) ||
                          !before(out.data(), in.data() + in.size());
    if (in_place || disjoint) return data;
    if constexpr (requires { endpoint_.copies_first(data); })
      if (endpoint_.copies_first(data)) return data;
    copy_.assign(data, data + in.size_bytes());
    return copy_.data();
  }

  // Counts that are all equal are the even case: one rank may state them and another not.
  static Signature with_counts(Signature signature, std::span<const std::size_t> counts, std::size_t own) {
    signature.count = own;
    if (std::ranges::all_of(counts, [&](std::size_t count) { return count == own; })) return signature;
    signature.count = std::accumulate(counts.begin(), counts.end(), std::size_t{0});
    signature.layout = layout_of(counts);
    return signature;
  }

  std::size_t begin_of(std::span<const std::size_t> counts) const {
    return std::accumulate(counts.begin(), counts.begin() + rank(), std::size_t{0});
  }

  void check_counts(std::string_view operation, std::span<const std::size_t> counts, std::optional<std::size_t> own,
                    std::size_t total, std::string_view own_name, std::string_view total_name) const {
    expects(counts.size() == ranks(), [&] {
      return std::string(operation) + ": one count per rank is needed, " + std::to_string(ranks()) + " in all, not " +
             std::to_string(counts.size());
    });
    std::size_t sum = 0;
    bool fits = true;
    for (const auto count : counts) {
      fits = fits && count <= total - sum;
      if (fits) sum += count;
    }
    expects(fits && sum == total, [&] {
      return std::string(operation) + ": the counts must add up to the " + std::to_string(total) + " elements of " +
             std::string(total_name);
    });
    expects(!own || counts[static_cast<std::size_t>(rank())] == *own, [&] {
      return std::string(operation) + ": " + std::string(own_name) + " of rank " + std::to_string(rank()) + " has " +
             std::to_string(*own) + " elements, but its count is " +
             std::to_string(counts[static_cast<std::size_t>(rank())]);
    });
  }

  void check_peer(std::string_view what, int peer) const {
    expects(peer >= 0 && peer < world_size(), [&] {
      return std::string(what) + ": " + std::to_string(peer) + " is no rank; there are 0 to " +
             std::to_string(world_size() - 1);
    });
  }

  void check_not_self(int peer) const {
    expects(peer != rank(), [&] { return "rank " + std::to_string(peer) + " cannot send to or receive from itself"; });
  }

  std::string sizes(std::string_view operation, std::size_t in, std::size_t out, std::size_t valid) const {
    return std::string(operation) + " over " + std::to_string(world_size()) + " ranks: in has " + std::to_string(in) +
           " elements and out " + std::to_string(out) + "; a valid size of out is " + std::to_string(valid);
  }

  EndpointOfT endpoint_;
  CommunicationOptions options_;
  Trace::Track* track_;
  D* device_;
  CommunicationCounters* counters_ = nullptr;
  std::uint64_t sequence_ = 0;
  std::vector<std::uint64_t> sent_, received_;  // messages to and from each peer
  std::optional<Failure> ended_;                // why every further call throws
  std::vector<std::byte> scratch_, copy_;       // keep their size: the steady state does not allocate
};

}  // namespace troika
