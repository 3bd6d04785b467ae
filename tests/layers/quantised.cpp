// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <device/quantised.hpp>
#include <support/catch.hpp>
#include <support/spmd.hpp>
#include <troika/layers/attention.hpp>
#include <troika/layers/elementwise.hpp>
#include <troika/layers/embedding.hpp>
#include <troika/layers/linear.hpp>

using namespace troika;
using troika::test::expanded;
using troika::test::quantised_types;
using troika::test::random_blocks;

namespace {

struct Matrix {
  Matrix(WeightType t, std::int64_t r, std::int64_t c, unsigned seed)
      : type(t), rows(r), columns(c), blocks(random_blocks(t, r * c, seed)), values(expanded(t, blocks)) {}
  QuantisedView view() const { return {type, blocks.data(), {rows, columns}}; }

  // x Wᵀ in double.
  std::vector<double> times(const std::vector<double>& x) const {
    const auto tokens = static_cast<std::int64_t>(x.size()) / columns;
    std::vector<double> y;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t o = 0; o < rows; ++o) {
        double sum = 0;
        for (std::int64_t i = 0; i < columns; ++i) {
          sum +=
              x[static_cast<std::size_t>(t * columns + i)] * double(values[static_cast<std::size_t>(o * columns + i)]);
        }
        y.push_back(sum);
      }
    }
    return y;
  }

  WeightType type;
  std::int64_t rows, columns;
  std::vector<std::byte> blocks;
  std::vector<float> values;
};

std::vector<float> random_values(std::int64_t count) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (auto& value : values) value = normal(random);
  return values;
}

// The largest difference, relative to the largest value.
template <class T>
double distance(const std::vector<float>& values, const std::vector<T>& reference) {
  REQUIRE(values.size() == reference.size());
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    difference = std::max(difference, std::abs(double(values[i]) - double(reference[i])));
    size = std::max(size, std::abs(double(reference[i])));
  }
  return std::isfinite(difference) ? difference / size : INFINITY;
}

template <class T>
std::vector<float> copied(std::span<T> values) {
  return {values.begin(), values.end()};
}

}  // namespace

TEST_CASE("an MLP of quantised weights is the same on any number of ranks, even and uneven") {
  for (const auto type : quantised_types) {
    const auto block = layout_of(type).block;
    const std::int64_t in = 256, middle = 5 * block, out = 19;
    const Matrix up(type, middle, in, 1), down(type, out, middle, 2);
    for (const std::int64_t tokens : {1, 3, 40}) {
      const auto x = random_values(tokens * in);
      const auto expected = down.times(up.times({x.begin(), x.end()}));
      for (const auto precision : {Precision::exact, Precision::fast}) {
        const bool exact = precision == Precision::exact;
        std::vector<float> alone;
        for (const int world : {1, 2, 3, 4, 5, 8}) {
          for (const bool even : {true, false}) {
            const auto allocation = even ? StaticAllocation{} : StaticAllocation{uneven_weights(world)};
            const auto ranks = spmd(world, allocation,
                                    [&](auto& pipeline) {
                                      const auto split = pipeline.partition(middle, block);
                                      const ColumnParallelLinear first{pipeline, up.view(), {}, split};
                                      const RowParallelLinear second{pipeline, down.view()};
                                      const auto input = pipeline.replicate(View<const float>(x.data(), {tokens, in}));
                                      return copied(pipeline.run(input, first, second, to<Replicate>).values());
                                    },
                                    {.precision = precision});
            INFO(to_string(type) << " on " << world << " ranks, even " << even << ", tokens " << tokens << ", exact "
                                 << exact);
            for (const auto& y : ranks) {
              CHECK(y == ranks[0]);
              CHECK(distance(y, expected) < (exact ? 1e-5 : 2e-2));
            }
            if (alone.empty()) alone = ranks[0];
            CHECK(distance(ranks[0], alone) < (exact ? 1e-5 : 5e-3));
          }
        }
      }
    }
  }
}

TEST_CASE(
    "on invariant devices an MLP of quantised weights gives each token the same bits on 1, 2, 4 and 8 ranks, alone and "
    "among others") {
  for (const auto type : quantised_types) {
    const auto block = layout_of(type).block;
    const std::int64_t in = 256, middle = 11 * block, out = 19, tokens = 37;  // pieces of 2, 2, 2, 1, ... blocks
    const Matrix up(type, middle, in, 1), down(type, out, middle, 2);
    std::vector<float> bias(static_cast<std::size_t>(out), 0.25f);
    const auto x = random_values(tokens * in);
    auto expected = down.times(up.times({x.begin(), x.end()}));
    for (auto& value : expected) value += 0.25;
    for (const auto precision : {Precision::exact, Precision::fast}) {
      std::vector<float> first;
      for (const int world : {1, 2, 4, 8}) {
        for (const std::int64_t together : {tokens, std::int64_t{1}, std::int64_t{10}}) {
          const auto ranks = spmd(
              world, StaticAllocation{},
              [&](auto& pipeline) {
                const ColumnParallelLinear up_layer{pipeline, up.view(), {}, pipeline.partition(middle, block)};
                const RowParallelLinear down_layer{pipeline, down.view(), bias};
                std::vector<float> y;
                for (std::int64_t t = 0; t < tokens; t += together) {
                  const auto count = std::min(together, tokens - t);
                  const auto input = pipeline.replicate(View<const float>(x.data() + t * in, {count, in}));
                  const auto some = copied(pipeline.run(input, up_layer, down_layer, to<Replicate>).values());
                  y.insert(y.end(), some.begin(), some.end());
                }
                return y;
              },
              {.precision = precision, .invariant = true}, world == 2 ? 2 : 0);
          INFO(to_string(type) << " on " << world << " ranks, " << together << " tokens at once, exact "
                               << (precision == Precision::exact));
          if (first.empty()) first = ranks[0];
          for (const auto& y : ranks) CHECK(y == first);
          CHECK(distance(first, expected) < (precision == Precision::exact ? 1e-5 : 2e-2));
        }
      }
    }
  }
}

TEST_CASE("a quantised table split by vocabulary embeds, and is the output projection") {
  const std::vector<std::int32_t> ids{0, 22, 7, 7, 11};
  for (const auto type : {WeightType::q8_0, WeightType::q6_k, WeightType::q4_0}) {
    const Matrix table(type, 23, 256, 3);
    std::vector<double> rows;
    for (const auto id : ids) {
      rows.insert(rows.end(), table.values.begin() + id * 256, table.values.begin() + (id + 1) * 256);
    }
    const auto logits = table.times(rows);
    for (const int world : test_worlds) {
      const auto ranks = spmd(world, [&](auto& pipeline) {
        const auto part = pipeline.partition(23);
        const VocabParallelEmbedding<HostDevice> embedding(
            detail::slice_weight<HostDevice>(pipeline.stream(), table.view(), part[pipeline.rank()], {0, 256}), part,
            pipeline.rank());
        const auto x =
            pipeline.run(pipeline.replicate(View<const std::int32_t>(ids.data(), {5})), embedding, to<Replicate>);
        return std::pair(copied(x.values()),
                         copied(pipeline.run(x, embedding.as_projection(), to<Replicate>).values()));
      });
      INFO(to_string(type) << " on " << world << " ranks");
      for (const auto& [x, y] : ranks) {
        CHECK(distance(x, rows) < 1e-6);
        CHECK(distance(y, logits) < 1e-5);
      }
    }
  }
}

TEST_CASE("a share that cuts a block is refused, with the shares that work") {
  const Matrix weight(WeightType::q4_0, 4, 64, 1);
  const auto message = spmd(2, [&](auto& pipeline) {
    try {
      (void)RowParallelLinear(pipeline, weight.view(), {}, Partition::by_hand(64, std::vector<std::int64_t>{48, 16}));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  })[0];
  CHECK_THAT(message, Catch::Matchers::ContainsSubstring("cut a block of Q4_0; valid shares are multiples of 32"));
}

TEST_CASE("heads stay together until they fill a block of the output projection") {
  const auto shares = [](int world) { return Shares{std::vector<double>(static_cast<std::size_t>(world), 1.0)}; };
  // 32 heads of 64, 4 to a KV head: a block of 256 is one group.
  CHECK(HeadSplit::make(shares(3), 32, 8, 64, 256).query == Partition::even(32, 3, 4));
  // 8 heads of 32, 4 to a KV head: a block of 256 is all of them, one of 32 is one.
  CHECK(HeadSplit::make(shares(2), 8, 2, 32, 256).query.to_string() == "0..7 | -");
  CHECK(HeadSplit::make(shares(4), 8, 2, 32, 32).query.to_string() == "0..1 | 2..3 | 4..5 | 6..7");
  // 24 heads of 64, 3 to a KV head: blocks of 4 heads and groups of 3 meet at 12; for more ranks the groups are cut.
  CHECK(HeadSplit::make(shares(2), 24, 8, 64, 256).query.to_string() == "0..11 | 12..23");
  const auto cut = HeadSplit::make(shares(3), 24, 8, 64, 256);
  CHECK(cut.query.to_string() == "0..7 | 8..15 | 16..23");
  CHECK(cut.kv[0] == Range{0, 3});
  CHECK(cut.kv[1] == Range{2, 6});
  CHECK_THROWS_WITH(HeadSplit::make(shares(2), 7, 7, 64, 256), Catch::Matchers::ContainsSubstring("multiples of 4"));
}
