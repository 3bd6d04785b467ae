// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include <troika/core/partition.hpp>
#include <troika/core/weight_type.hpp>
#include <troika/layers/attention.hpp>
#include <troika/models/files/config.hpp>
#include <troika/models/files/weights.hpp>

namespace troika::models {

// One line of a plan: a tensor, and which part of it each rank holds.
struct PlanRow {
  std::string tensor;    // "attention query", once for all blocks
  Shape shape;           // of the whole
  int split_dim;         // -1: every rank holds all of it
  Partition partition;   // of split_dim
  std::int64_t copies;   // how many of these a model has
  bool reduced = false;  // its product is a Partial: an all_reduce follows
  std::int64_t elements_of(int rank) const {
    return copies * (split_dim < 0 ? shape.count() : shape.with(split_dim, partition[rank].size()).count());
  }
};

// How many elements the matrices that are split by columns store together, in any of the layers: a rank holds whole
// blocks.
struct SplitBlocks {
  std::int64_t attention_output = 1, mlp_down = 1;

  static SplitBlocks of(const Weights& weights) {
    SplitBlocks blocks;
    const auto widen = [&](std::int64_t& block, const std::string& name) {
      if (const auto type = weights.info(name).type) block = std::lcm(block, layout_of(*type).block);
    };
    for (const auto& name : weights.names()) {
      if (name.ends_with(".o_proj.weight") || name.ends_with(".attention.output.dense.weight")) {
        widen(blocks.attention_output, name);
      } else if (name.ends_with(".down_proj.weight") || name.ends_with(".output.dense.weight")) {
        widen(blocks.mlp_down, name);
      }
    }
    return blocks;
  }
};

// Who holds what of a model: the one place where this is decided. Loading and printing follow it.
struct ModelSplit {
  HeadSplit heads;
  Partition intermediate, vocab;   // intermediate: of the MLP, or of all experts of a layer together
  std::vector<Partition> experts;  // of the inner features of each

  static ModelSplit make(const ModelConfig& config, const Shares& shares, SplitBlocks blocks = {}) {
    ModelSplit split{HeadSplit::make(shares, config.heads, config.kv_heads, config.head_dim, blocks.attention_output),
                     Partition(),
                     shares.partition(config.vocab_size),
                     {}};
    if (!config.experts) {
      split.intermediate = shares.partition(config.intermediate_size, blocks.mlp_down);
      return split;
    }
    const auto count = config.experts->count, size = config.experts->intermediate_size;
    split.experts = deal(shares, count, size, blocks.mlp_down);
    std::vector<std::int64_t> sums(shares.weights.size(), 0);
    for (const auto& expert : split.experts) {
      for (std::size_t rank = 0; rank < sums.size(); ++rank) sums[rank] += expert[static_cast<int>(rank)].size();
    }
    split.intermediate = Partition::by_hand(count * size, sums);
    return split;
  }

  // Partitions of `count` equal extents, each in whole blocks. An expert may have few blocks, three on two ranks say:
  // what a rank is owed of one it gets of the next, so that over all of them the shares are right.
  static std::vector<Partition> deal(const Shares& shares, std::int64_t count, std::int64_t extent,
                                     std::int64_t block) {
    (void)shares.partition(extent, block);  // or an error that says which extents have whole blocks
    const auto weights = shares.invariant ? std::vector<double>(Shares::invariant_pieces, 1.0) : shares.weights;
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<double> owed(weights.size(), 0.0);  // blocks
    std::vector<std::int64_t> sizes(owed.size());
    std::vector<Partition> partitions;
    for (std::int64_t i = 0; i < count; ++i) {
      std::int64_t left = extent / block;
      const auto units = static_cast<double>(left);
      for (std::size_t rank = 0; rank < owed.size(); ++rank) {
        owed[rank] += units * (weights[rank] / total);
        sizes[rank] = std::clamp<std::int64_t>(static_cast<std::int64_t>(owed[rank]), 0, left);
        left -= sizes[rank];
        owed[rank] -= static_cast<double>(sizes[rank]);
      }
      for (; left > 0; --left) {
        std::size_t most = owed.size();
        for (std::size_t rank = 0; rank < owed.size(); ++rank) {
          if (weights[rank] > 0 && (most == owed.size() || owed[rank] > owed[most] + 1e-9)) most = rank;
        }
        ++sizes[most];
        owed[most] -= 1;
      }
      for (auto& size : sizes) size *= block;
      partitions.push_back(Partition::by_hand(extent, sizes, block));
      if (shares.invariant) partitions.back() = partitions.back().joined(shares.world_size());
    }
    return partitions;
  }

  std::vector<PlanRow> rows(const ModelConfig& config) const {
    const auto hidden = config.hidden_size, layers = config.layers;
    const auto query = heads.query_features(), kv = heads.kv_features();
    std::vector<PlanRow> rows;
    rows.push_back({"embedding", {vocab.extent(), hidden}, 0, vocab, 1, true});
    rows.push_back({"attention query", {query.extent(), hidden}, 0, query, layers});
    rows.push_back({"attention key", {kv.extent(), hidden}, 0, kv, layers});
    rows.push_back({"attention value", {kv.extent(), hidden}, 0, kv, layers});
    rows.push_back({"attention output", {hidden, query.extent()}, 1, query, layers, true});
    if (config.experts) rows.push_back({"router", {config.experts->count, hidden}, -1, Partition(), layers});
    if (config.gated_mlp) rows.push_back({"mlp gate", {intermediate.extent(), hidden}, 0, intermediate, layers});
    rows.push_back({"mlp up", {intermediate.extent(), hidden}, 0, intermediate, layers});
    rows.push_back({"mlp down", {hidden, intermediate.extent()}, 1, intermediate, layers, true});
    if (config.is_decoder() && !config.tie_word_embeddings) {
      rows.push_back({"logits", {vocab.extent(), hidden}, 0, vocab, 1});
    }
    return rows;
  }
};

}  // namespace troika::models
