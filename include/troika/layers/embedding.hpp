// SPDX-License-Identifier: Apache-2.0
#pragma once

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
    for (const auto id : on_host.span()) {
      expects(id >= 0 && id < partition_.extent(), [&] {
        return "token id " + std::to_string(id) + " is outside of the vocabulary of " +
               std::to_string(partition_.extent());
      });
    }
    Tensor<float, D> y(stream.device(), {ids.shape()[0], table_.shape()[1]});
    table_.visit([&](auto table) { embedding(stream, ids.local().span(), table, partition_[rank_].begin, y.view()); });
    return DTensor<float, Partial, D>(std::move(y));
  }

  // The table as output projection, for models that tie the two: hidden state -> logits, Replicate -> Shard<1>.
  auto as_projection() const { return Projection{this}; }

  const Weight<D>& table() const { return table_; }
  const Partition& partition() const { return partition_; }

 private:
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
