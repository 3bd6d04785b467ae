// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <troika/communication/transport.hpp>
#include <troika/sync/chunking.hpp>
#include <troika/sync/dtensor.hpp>
#include <troika/sync/replicated.hpp>

namespace troika {

// Which ranks hold what of a tensor: moves it between placements, and checks that replicas are the same. Every call is
// collective: all ranks of the communication make it, in the same order. One thread a rank.
//
//   Partial  -> Replicate   all_reduce            Replicate -> Shard<d>   a local slice
//   Partial  -> Shard<d>    reduce_scatter        Shard<i>  -> Shard<j>   all_to_all
//   Shard<d> -> Replicate   all_gather            Replicate -> Partial    rank 0 keeps it, the others hold zero
//                                                 Shard<d>  -> Partial    zeros around the piece; nothing moves
template <class Communication>
class DataSync {
 public:
  explicit DataSync(Communication& communication)
      : communication_(&communication),
        counts_(static_cast<std::size_t>(communication.world_size())),
        peer_counts_(counts_) {}

  int rank() const { return communication_->rank(); }
  int world_size() const { return communication_->world_size(); }
  Chunking& chunking() { return chunking_; }

  // x under another placement; the value of the whole tensor stays. For To = Shard<d>, `target` says who gets what of
  // dimension d; without one the split is even. Sums add as a binary tree over the ranks (reduce.hpp).
  template <Placement To, Element T, Placement From, Device D, class S>
  DTensor<T, To, D> redistribute(DTensor<T, From, D> x, S& stream, const Partition* target = nullptr) {
    if constexpr (is_shard<To>) {
      const auto extent = extent_along<shard_dim<To>>(x.shape());
      if (!target) return redistribute_to_shard<To>(std::move(x), stream, Partition::even(extent, world_size()));
      expects(target->extent() == extent && target->parts() == world_size() && target->is_disjoint(), [&] {
        return "the partition " + target->to_string() + " does not split " + std::to_string(extent) + " indices over " +
               std::to_string(world_size()) + " ranks without overlap";
      });
      return redistribute_to_shard<To>(std::move(x), stream, *target);
    } else if constexpr (std::same_as<From, To>) {
      return x;
    } else if constexpr (std::same_as<To, Replicate> && std::same_as<From, Partial>) {
      auto local = std::move(x).release();
      communication_->all_reduce(local.span());
      return DTensor<T, To, D>(std::move(local));
    } else if constexpr (std::same_as<To, Replicate>) {
      return all_gather(std::move(x), stream);
    } else if constexpr (is_shard<From>) {
      Tensor<T, D> whole(stream.device(), x.shape());
      fill_zero(stream, whole.view());
      paste_slice(stream, std::as_const(x).local(), whole.view(), shard_dim<From>, x.partition()[rank()]);
      return DTensor<T, To, D>(std::move(whole));
    } else {
      auto local = std::move(x).release();
      if (rank() != 0) fill_zero(stream, local.view());
      return DTensor<T, To, D>(std::move(local));
    }
  }

  // Every rank's copy is the same, bit for bit: else Error{mismatch} on every rank, naming the rank that differs from
  // most (with two ranks: from rank 0). `name` is for the message.
  template <Element T, Device D, class S>
  void verify(const DTensor<T, Replicate, D>& x, S& stream, const std::string& name = "tensor") {
    compare_replicas({0, checksum(stream, x.local())}, name);
  }
  template <Element T, Device D, class S>
  void verify(const Replicated<T, D>& x, S& stream) {
    const auto snapshot = x.read();
    compare_replicas({snapshot->version, checksum(stream, snapshot->values.view())}, x.name());
  }

  // Gives every rank the values of `root`, as the next version. Readers on any thread see the old values or the new
  // ones, whole: the new ones are received beside the old, compared on all ranks, and put in place by one pointer.
  template <Element T, Device D, class S>
  void update(Replicated<T, D>& x, View<const T> values, Root root, S& stream) {
    const auto before = x.read();
    Tensor<T, D> next(stream.device(), before->values.shape());
    if (rank() == root.rank) copy(stream, values, next.view());
    communication_->broadcast(next.span(), root);
    compare_replicas({before->version + 1, checksum(stream, std::as_const(next).view())}, x.name());
    x.publish(std::move(next), before->version + 1);
  }

 private:
  struct Stamp {
    std::uint64_t version, checksum;
    bool operator==(const Stamp&) const = default;
  };

  template <int Dim>
  static std::int64_t extent_along(const Shape& shape) {
    expects(Dim < shape.dims(),
            [&] { return "a tensor of shape " + shape.to_string() + " has no dimension " + std::to_string(Dim); });
    return shape[Dim];
  }

  template <Placement To, Element T, Placement From, Device D, class S>
  DTensor<T, To, D> redistribute_to_shard(DTensor<T, From, D> x, S& stream, Partition target) {
    constexpr int dim = shard_dim<To>;
    const Range mine = target[rank()];
    if constexpr (std::same_as<From, To>) {
      if (x.partition() == target) return x;
      auto whole = all_gather(std::move(x), stream);  // another split of the same dimension
      return redistribute_to_shard<To>(std::move(whole), stream, std::move(target));
    } else {
      Tensor<T, D> piece(stream.device(), x.shape().with(dim, mine.size()));
      if constexpr (std::same_as<From, Replicate>) {
        copy_slice(stream, std::as_const(x).local(), dim, mine, piece.view());
      } else if constexpr (std::same_as<From, Partial>) {
        reduce_scatter(x, stream, target, dim, piece);
      } else {
        all_to_all(x, stream, target, dim, piece);
      }
      return DTensor<T, To, D>(std::move(piece), std::move(target), rank());
    }
  }

  template <Element T, Placement From, Device D, class S>
  DTensor<T, Replicate, D> all_gather(DTensor<T, From, D> x, S& stream) {
    constexpr int dim = shard_dim<From>;
    const Partition partition = x.partition();
    const auto counts = this->counts(partition, x.shape(), dim);
    Tensor<T, D> whole(stream.device(), x.shape());
    const auto mine = std::as_const(x).local().span();
    if (x.shape().outer(dim) == 1 && partition.is_disjoint()) {  // the pieces lie one after another in the whole
      communication_->all_gather(mine, whole.span(), counts);
      return DTensor<T, Replicate, D>(std::move(whole));
    }
    const auto held = std::accumulate(counts.begin(), counts.end(), std::size_t{0});
    Tensor<T, D> pieces(stream.device(), Shape{static_cast<std::int64_t>(held)});
    communication_->all_gather(mine, pieces.span(), counts);
    std::int64_t at = 0;
    for (int r = 0; r < world_size(); ++r) {
      const auto shape = x.shape().with(dim, partition[r].size());
      paste_slice(stream, View<const T>(pieces.data() + at, shape), whole.view(), dim, partition[r]);
      at += shape.count();
    }
    return DTensor<T, Replicate, D>(std::move(whole));
  }

  template <Element T, Device D, class S>
  void reduce_scatter(DTensor<T, Partial, D>& x, S& stream, const Partition& target, int dim, Tensor<T, D>& piece) {
    const auto counts = this->counts(target, x.shape(), dim);
    if (x.shape().outer(dim) == 1) {
      communication_->reduce_scatter(std::as_const(x).local().span(), piece.span(), counts);
      return;
    }
    Tensor<T, D> packed(stream.device(), x.shape());  // one rank's piece after the other
    std::int64_t at = 0;
    for (int r = 0; r < world_size(); ++r) {
      const auto shape = x.shape().with(dim, target[r].size());
      copy_slice(stream, std::as_const(x).local(), dim, target[r], View<T>(packed.data() + at, shape));
      at += shape.count();
    }
    communication_->reduce_scatter(std::as_const(packed).span(), piece.span(), counts);
  }

  template <Element T, Placement From, Device D, class S>
  void all_to_all(DTensor<T, From, D>& x, S& stream, const Partition& target, int dim, Tensor<T, D>& piece) {
    constexpr int from_dim = shard_dim<From>;
    const Partition& from = x.partition();
    expects(from.is_disjoint(), [&] { return "cannot move a tensor with replicated parts: " + from.to_string(); });
    const Shape held = x.local().shape();
    Tensor<T, D> sent(stream.device(), held), received(stream.device(), piece.shape());
    std::int64_t at = 0;
    for (int r = 0; r < world_size(); ++r) {
      const auto shape = held.with(dim, target[r].size());
      copy_slice(stream, std::as_const(x).local(), dim, target[r], View<T>(sent.data() + at, shape));
      at += shape.count();
      peer_counts_[static_cast<std::size_t>(r)] =
          static_cast<std::size_t>(piece.shape().with(from_dim, from[r].size()).count());
    }
    communication_->all_to_all(std::as_const(sent).span(), counts(target, held, dim), received.span(),
                               std::span<const std::size_t>(peer_counts_));
    at = 0;
    for (int r = 0; r < world_size(); ++r) {
      const auto shape = piece.shape().with(from_dim, from[r].size());
      paste_slice(stream, View<const T>(received.data() + at, shape), piece.view(), from_dim, from[r]);
      at += shape.count();
    }
  }

  void compare_replicas(Stamp mine, const std::string& name) {
    std::vector<Stamp> stamps(static_cast<std::size_t>(world_size()));
    communication_->all_gather(as_bytes(std::span<const Stamp>(&mine, 1)), as_bytes(std::span<Stamp>(stamps)));
    std::size_t agreed = 0, votes = 0;
    for (std::size_t i = 0; i < stamps.size(); ++i) {
      const auto same = static_cast<std::size_t>(std::ranges::count(stamps, stamps[i]));
      if (same > votes) agreed = i, votes = same;
    }
    for (std::size_t i = 0; i < stamps.size(); ++i) {
      if (stamps[i] == stamps[agreed]) continue;
      throw Error(Fault::mismatch,
                  name + " differs from its other replicas: version " + std::to_string(stamps[i].version) +
                      " with checksum " + std::to_string(stamps[i].checksum) + ", where rank " +
                      std::to_string(agreed) + " has version " + std::to_string(stamps[agreed].version) +
                      " with checksum " + std::to_string(stamps[agreed].checksum),
                  {static_cast<int>(i), "verify", communication_->sequence()});
    }
  }

  static std::span<const std::uint8_t> as_bytes(std::span<const Stamp> x) {
    return {reinterpret_cast<const std::uint8_t*>(x.data()), x.size_bytes()};
  }
  static std::span<std::uint8_t> as_bytes(std::span<Stamp> x) {
    return {reinterpret_cast<std::uint8_t*>(x.data()), x.size_bytes()};
  }

  // Elements that each rank holds of a tensor of this shape, split by the partition along dim.
  std::span<const std::size_t> counts(const Partition& partition, const Shape& shape, int dim) {
    for (int r = 0; r < world_size(); ++r) {
      counts_[static_cast<std::size_t>(r)] = static_cast<std::size_t>(shape.with(dim, partition[r].size()).count());
    }
    return counts_;
  }

  Communication* communication_;
  Chunking chunking_;
  std::vector<std::size_t> counts_, peer_counts_;  // elements per rank; kept so that a call allocates nothing
};

}  // namespace troika
