// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <string>
#include <utility>

#include <troika/core/dtype.hpp>
#include <troika/core/partition.hpp>
#include <troika/core/placement.hpp>
#include <troika/core/shape.hpp>
#include <troika/device/tensor.hpp>

namespace troika {

// One tensor over all ranks, seen from one of them: the global shape, this rank's piece, and in the type how the pieces
// make the whole. Moves only.
template <Element T, Placement P, Device D>
class DTensor {
 public:
  using value_type = T;
  using placement = P;
  using device = D;

  DTensor() = default;

  // Replicate: all of it. Partial: this rank's term of the sum.
  explicit DTensor(Tensor<T, D> local) requires(!is_shard<P>) : local_(std::move(local)), shape_(local_.shape()) {}

  // Shard<Dim>: the piece of `rank`, with partition[rank].size() along Dim.
  DTensor(Tensor<T, D> local, Partition partition, int rank) requires is_shard<P> : local_(std::move(local)),
                                                                                    partition_(std::move(partition)) {
    const Shape& piece = local_.shape();
    expects(shard_dim<P> < piece.dims(),
            [&] { return placement_name<P>() + " of a tensor of shape " + piece.to_string(); });
    expects(0 <= rank && rank < partition_.parts() && piece[shard_dim<P>] == partition_[rank].size(), [&] {
      return "rank " + std::to_string(rank) + " holds " + piece.to_string() + ", which is not its part of " +
             partition_.to_string() + " along dimension " + std::to_string(shard_dim<P>);
    });
    shape_ = piece.with(shard_dim<P>, partition_.extent());
  }

  const Shape& shape() const { return shape_; }  // of the whole tensor
  View<T> local() { return local_.view(); }      // this rank's piece
  View<const T> local() const { return local_.view(); }
  const Partition& partition() const requires is_shard<P> { return partition_; }

  // The values of the tensor, for the program to read where it reaches them: else read_back(stream, x.local()).
  std::span<const T> values() const {
    static_assert(std::same_as<P, Replicate>,
                  "only a Replicate tensor can be read: put troika::to<troika::Replicate> before it");
    static_assert(!HasOwnMemory<D>, "the host does not reach this device's memory: read_back(stream, x.local())");
    return local_.span();
  }

  Tensor<T, D> release() && { return std::move(local_); }

 private:
  struct Whole {};
  Tensor<T, D> local_;
  Shape shape_;
  [[no_unique_address]] std::conditional_t<is_shard<P>, Partition, Whole> partition_{};
};

}  // namespace troika
