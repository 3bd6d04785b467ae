// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include <support/catch.hpp>

#include <troika/core/error.hpp>
#include <troika/models/split.hpp>

using namespace troika;
using namespace troika::models;

TEST_CASE("experts of few blocks are dealt in whole blocks, so that every rank has its share of all of them") {
  const std::vector<std::vector<double>> worlds{{1},    {1, 1},       {1, 1, 1},   {1, 1, 1, 1}, {1, 1, 1, 1, 1},
                                                {1, 3}, {2, 0, 1, 1}, {1, 3, 1, 3}};
  for (const auto& weights : worlds) {
    for (const std::int64_t blocks : {1, 2, 3, 24}) {
      constexpr std::int64_t count = 60, block = 256;
      const auto partitions = ModelSplit::deal(Shares{weights}, count, blocks * block, block);
      REQUIRE(partitions.size() == count);
      const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
      std::vector<std::int64_t> sums(weights.size(), 0);
      for (const auto& partition : partitions) {
        REQUIRE(partition.extent() == blocks * block);
        REQUIRE(partition.is_disjoint());
        for (std::size_t rank = 0; rank < weights.size(); ++rank) {
          const auto size = partition[static_cast<int>(rank)].size();
          REQUIRE(size % block == 0);
          sums[rank] += size / block;
        }
      }
      for (std::size_t rank = 0; rank < weights.size(); ++rank) {
        CAPTURE(blocks, rank, sums[rank]);
        CHECK(std::abs(static_cast<double>(sums[rank]) - static_cast<double>(count * blocks) * weights[rank] / total) <=
              1);
      }
    }
  }
  CHECK_THROWS_AS(ModelSplit::deal(Shares{{1, 1}}, 3, 100, 32), Error);
}

TEST_CASE("the plan of a mixture of experts counts every expert") {
  const auto config =
      ModelConfig::parse(R"({"model_type":"qwen3_moe","hidden_size":64,"num_attention_heads":4,"num_key_value_heads":2,
    "num_hidden_layers":3,"vocab_size":100,"num_experts":5,"num_experts_per_tok":2,"moe_intermediate_size":96})");
  const Shares shares{{1, 1}};
  std::int64_t down = 0, router = 0;
  for (const auto& row : ModelSplit::make(config, shares, {.attention_output = 1, .mlp_down = 32}).rows(config)) {
    for (int rank = 0; rank < 2; ++rank) {
      if (row.tensor == "mlp down") down += row.elements_of(rank);
      if (row.tensor == "router") router += row.elements_of(rank);
    }
  }
  CHECK(down == 3 * 5 * 64 * 96);
  CHECK(router == 2 * 3 * 5 * 64);  // whole on both
}
