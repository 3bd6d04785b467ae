// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <troika/device/weight.hpp>
#include <troika/sync/dtensor.hpp>

namespace troika {

// Looks token ids up in a table whose rows, the vocabulary, are split over the ranks: each rank gives zeros for the ids
// of others, and the sum is the embedding. Replicate ids -> Partial.
template <Device D>
class VocabParallelEmbedding {
 public:
  static constexpr std::string_view name = "vocab_parallel_embedding";

  VocabParallelEmbedding() = default;
  // table: this rank's rows, (partition[rank].size(), features)
  VocabParallelEmbedding(Weight<D> table, Partition partition, int rank)
      : table_(std::move(table)), partition_(std::move(partition)), rank_(rank) {
    expects(table_.shape().dims() == 2 && table_.shape()[0] == partition_[rank].size(), [&] {
      return std::string(name) + ": table " + table_.shape().to_string() + " is not this rank's part of " +
             partition_.to_string();
    });
  }

  // ids: (tokens); an id outside of the vocabulary is an error on every rank.
  template <class S>
  DTensor<float, Partial, D> operator()(const DTensor<std::int32_t, Replicate, D>& ids, S& stream) const {
    const auto on_host = read_back(stream, ids.local());
    check(on_host.span());
    return LookUp{this}(ids, stream);
  }

  void check(std::span<const std::int32_t> ids) const {
    for (const auto id : ids) {
      expects(id >= 0 && id < partition_.extent(), [&] {
        return "token id " + std::to_string(id) + " is outside of the vocabulary of " +
               std::to_string(partition_.extent());
      });
    }
  }
  // The stage for ids that check() has seen in memory of the host: nothing waits for the device.
  auto checked() const { return LookUp{this}; }

  // The table as output projection, for models that tie the two: hidden state -> logits, Replicate -> Shard<1>.
  auto as_projection() const { return Projection{this}; }

  const Weight<D>& table() const { return table_; }
  const Partition& partition() const { return partition_; }

 private:
  struct LookUp {
    static constexpr std::string_view name = VocabParallelEmbedding::name;
    const VocabParallelEmbedding* of;

    template <class S>
    DTensor<float, Partial, D> operator()(const DTensor<std::int32_t, Replicate, D>& ids, S& stream) const {
      const auto first = of->partition_[of->rank_].begin;
      Tensor<float, D> y(stream.device(), {ids.shape()[0], of->table_.shape()[1]});
      of->table_.visit([&](auto table) { embedding(stream, ids.local().span(), table, first, y.view()); });
      return DTensor<float, Partial, D>(std::move(y));
    }
  };
  struct Projection {
    static constexpr std::string_view name = "logits";
    const VocabParallelEmbedding* embedding;

    template <class S>
    DTensor<float, Shard<1>, D> operator()(const DTensor<float, Replicate, D>& x, S& stream) const {
      Tensor<float, D> y(stream.device(), {x.shape()[0], embedding->table_.shape()[0]});
      embedding->table_.visit([&](auto table) { linear(stream, x.local(), table, y.view()); });
      return {std::move(y), embedding->partition_, embedding->rank_};
    }
  };

  Weight<D> table_;
  Partition partition_;
  int rank_ = 0;
};

}  // namespace troika
