// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <troika/device/attention_mask.hpp>
#include <troika/device/kv_rows.hpp>
#include <troika/device/rotary_table.hpp>
#include <troika/device/second_stream.hpp>
#include <troika/layers/kv_cache.hpp>
#include <troika/layers/linear.hpp>
#include <troika/sync/dtensor.hpp>

namespace troika {

// How the heads of grouped-query attention (arXiv 2305.13245) are split: query heads over the ranks, and with each rank
// the KV heads that its query heads read. While there are at least as many KV heads as ranks, whole groups stay
// together and no KV head is held twice; beyond that, KV heads are replicated. Each rank's features are whole blocks of
// `block`, the elements that the output projection stores together: where a head is less than that, several heads stay
// together.
struct HeadSplit {
  std::int64_t head_dim = 0;
  Partition query, kv;

  static HeadSplit make(const Shares& shares, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
                        std::int64_t block = 1) {
    expects(heads >= 1 && kv_heads >= 1 && heads % kv_heads == 0, [&] {
      return std::to_string(heads) + " query heads cannot share " + std::to_string(kv_heads) +
             " KV heads; valid numbers of KV heads divide the query heads";
    });
    const auto group = heads / kv_heads, together = block / std::gcd(block, head_dim), both = std::lcm(group, together);
    expects(heads % together == 0, [&] {
      return std::to_string(heads) + " heads of " + std::to_string(head_dim) + " are not whole blocks of " +
             std::to_string(block) + "; valid numbers of heads are multiples of " + std::to_string(together);
    });
    auto query = shares.partition(heads, shares.pieces() <= heads / both ? both : together);
    auto kv = query.covering(group);
    return {head_dim, std::move(query), std::move(kv)};
  }
  Partition query_features() const { return query.scaled(head_dim); }
  Partition kv_features() const { return kv.scaled(head_dim); }
};

// What one forward pass gives every attention layer.
template <Device D>
struct AttentionContext {
  std::span<const std::int32_t> positions;       // (tokens), of the whole input
  const RotaryTable* rotary = nullptr;           // null: positions are in the embedding
  typename KvMemory<D>::Layer* cache = nullptr;  // null: the tokens of a sequence see each other, in both directions
  std::span<const SequenceRows> sequences{};  // whose the tokens are, in their order; without a cache, none: all of one
  std::int64_t window = 0;                    // tokens that one sees, itself included; 0: all before it
};

// Attention on this rank's heads: with(context), Replicate -> Shard<1>, then output(), Shard<1> -> Partial. Queries, keys
// and values are column-parallel by heads, the output projection is row-parallel; nothing moves between ranks inside.
template <Device D>
class Attention {
 public:
  static constexpr std::string_view name = "attention";

  struct Scores {
    float scale = 0;  // of a query times a key; 0: 1 / sqrt(head_dim)
    float cap = 0;    // scores become cap tanh(score / cap) (Gemma 2); 0: they stay
  };
  struct Norms {  // RMSNorm over each head before rotation (Qwen3); empty when the model has none
    Tensor<float, D> query, key;
    float eps = 1e-6f;
  };

  Attention() = default;
  Attention(HeadSplit heads, ColumnParallelLinear<D> query, ColumnParallelLinear<D> key, ColumnParallelLinear<D> value,
            RowParallelLinear<D> output, int rank, Norms norms = {}, Scores scores = {})
      : heads_(std::move(heads)),
        query_(std::move(query)),
        key_(std::move(key)),
        value_(std::move(value)),
        output_(std::move(output)),
        norms_(std::move(norms)),
        scores_(scores),
        rank_(rank) {
    if (scores_.scale == 0) scores_.scale = 1.0f / std::sqrt(static_cast<float>(heads_.head_dim));
    const auto group = heads_.query.extent() / heads_.kv.extent();
    for (auto head = heads_.query[rank].begin; head < heads_.query[rank].end; ++head) {
      kv_head_of_.push_back(static_cast<std::int32_t>(head / group - heads_.kv[rank].begin));
    }
  }

  // The stage for one forward pass: what each head takes from the values. The context must outlive the stage.
  auto with(const AttentionContext<D>& context) const { return Stage{this, &context}; }
  const RowParallelLinear<D>& output() const { return output_; }

  const HeadSplit& heads() const { return heads_; }

 private:
  struct Stage {
    static constexpr std::string_view name = Attention::name;
    const Attention* layer;
    const AttentionContext<D>* context;

    template <class S>
    DTensor<float, Shard<1>, D> operator()(const DTensor<float, Replicate, D>& x, S& stream) const {
      layer->check(*context, x.shape()[0]);
      return layer->attend(ColumnParallelLinear<D>::of(x, stream, layer->query_, layer->key_, layer->value_), *context,
                           stream);
    }
    template <class Pipeline>
    DTensor<float, Shard<1>, D> gathered(Pipeline& pipeline,
                                         const DTensor<float, Shard<0>, D>& x) const requires HasSecondStream<D> {
      layer->check(*context, x.shape()[0]);
      return layer->attend(ColumnParallelLinear<D>::of_gathered(pipeline, x, layer->query_, layer->key_, layer->value_),
                           *context, pipeline.stream());
    }
  };

  void check(const AttentionContext<D>& context, std::int64_t tokens) const {
    expects(static_cast<std::int64_t>(context.positions.size()) == tokens, [&] {
      return std::to_string(context.positions.size()) + " positions for " + std::to_string(tokens) + " tokens";
    });
    if (context.cache || !context.sequences.empty()) {
      const auto all = std::accumulate(context.sequences.begin(), context.sequences.end(), std::int64_t{0},
                                       [](std::int64_t sum, const SequenceRows& rows) { return sum + rows.tokens; });
      expects(all == tokens, [&] {
        return "sequences of " + std::to_string(all) + " tokens in all, for an input of " + std::to_string(tokens);
      });
    }
  }

  template <class S>
  DTensor<float, Shard<1>, D> attend(std::array<DTensor<float, Shard<1>, D>, 3> projections,
                                     const AttentionContext<D>& context, S& stream) const {
    auto& [query, key, value] = projections;
    const std::int64_t tokens = query.shape()[0], dim = heads_.head_dim;
    const Shape query_shape{tokens, heads_.query[rank_].size(), dim}, kv_shape{tokens, heads_.kv[rank_].size(), dim};
    const auto q = query.local().reshaped(query_shape), k = key.local().reshaped(kv_shape);
    const auto v = std::as_const(value).local().reshaped(kv_shape);

    if (norms_.query.data()) {
      norm_heads(q, norms_.query, stream);
      norm_heads(k, norms_.key, stream);
    }
    if (context.rotary) {
      rotary(stream, q, context.positions, *context.rotary);
      rotary(stream, k, context.positions, *context.rotary);
    }

    Tensor<float, D> mixed(stream.device(), query_shape);
    const auto attend = [&](View<const float> some, KvView keys, KvView values, AttentionMask mask, View<float> to) {
      attention(stream, some, keys, values, kv_head_of_, mask, scores_.scale, to, scores_.cap);
    };
    std::int64_t first = 0;
    for (const auto& sequence : context.sequences) {
      const auto last = first + sequence.tokens;
      const auto to = mixed.view().rows(first, last);
      if (!context.cache) {
        attend(q.rows(first, last), View<const float>(k.rows(first, last)), v.rows(first, last),
               AttentionMask::bidirectional(), to);
      } else {
        const auto end = sequence.cached + sequence.tokens;
        sequence.for_runs([&](std::int64_t from, std::int64_t until, std::int64_t row) {
          store(stream, View<const float>(k.rows(first + from, first + until)), context.cache->keys, row);
          store(stream, v.rows(first + from, first + until), context.cache->values, row);
        });
        const auto* const pages = sequence.pages.empty() ? nullptr : sequence.pages.data();
        attend(q.rows(first, last), context.cache->keys.first(end, pages), context.cache->values.first(end, pages),
               context.window > 0 ? AttentionMask::causal(sequence.cached, context.window)
                                  : AttentionMask::causal(sequence.cached),
               to);
      }
      first = last;
    }
    if (!context.cache && context.sequences.empty()) {
      attend(q, View<const float>(k), v, AttentionMask::bidirectional(), mixed.view());
    }
    const Shape features{tokens, heads_.query[rank_].size() * dim};
    return {std::move(mixed).reshaped(features), output_.partition(), rank_};
  }

  template <class S>
  void norm_heads(View<float> x, const Tensor<float, D>& weight, S& stream) const {
    const auto rows = x.reshaped({x.shape()[0] * x.shape()[1], x.shape()[2]});
    rms_norm(stream, View<const float>(rows), weight.span(), norms_.eps, rows);
  }

  HeadSplit heads_;
  ColumnParallelLinear<D> query_, key_, value_;
  RowParallelLinear<D> output_;
  Norms norms_;
  Scores scores_;
  std::vector<std::int32_t> kv_head_of_;  // local query head -> local KV head
  int rank_ = 0;
};

}  // namespace troika
