// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <support/catch.hpp>
#include <support/spmd.hpp>
#include <troika/layers/elementwise.hpp>
#include <troika/layers/embedding.hpp>
#include <troika/layers/linear.hpp>

using troika::ColumnParallelLinear;
using troika::Partition;
using troika::Replicate;
using troika::RowParallelLinear;
using troika::Shard;
using troika::View;

namespace {

std::vector<float> random_values(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (auto& value : values) value = normal(random);
  return values;
}

// x Wᵀ + b in double.
std::vector<double> product(const std::vector<double>& x, const std::vector<float>& w, const std::vector<float>& bias,
                            std::size_t tokens, std::size_t in, std::size_t out) {
  std::vector<double> y(tokens * out);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t o = 0; o < out; ++o) {
      double sum = bias.empty() ? 0 : bias[o];
      for (std::size_t i = 0; i < in; ++i) sum += x[t * in + i] * w[o * in + i];
      y[t * out + o] = sum;
    }
  }
  return y;
}

double worst(std::span<const float> values, const std::vector<double>& reference) {
  REQUIRE(values.size() == reference.size());
  double difference = 0;
  for (std::size_t i = 0; i < values.size(); ++i) difference = std::max(difference, std::abs(values[i] - reference[i]));
  return std::isfinite(difference) ? difference : INFINITY;
}

template <class T>
std::vector<float> copied(std::span<T> values) {
  std::vector<float> result;
  for (const auto value : values) result.push_back(static_cast<float>(value));
  return result;
}

}  // namespace

TEST_CASE("an MLP with biases is the same on any number of ranks, even and uneven") {
  constexpr std::int64_t tokens = 3, in = 13, middle = 29, out = 11;
  const auto x = random_values(tokens * in, 1), w1 = random_values(middle * in, 2), b1 = random_values(middle, 3);
  const auto w2 = random_values(out * middle, 4), b2 = random_values(out, 5);

  auto hidden = product({x.begin(), x.end()}, w1, b1, tokens, in, middle);
  for (auto& value : hidden) value *= 0.5 * std::erfc(-value / std::sqrt(2.0));
  const auto expected = product(hidden, w2, b2, tokens, middle, out);

  const auto check = [&](int world, troika::StaticAllocation allocation) {
    const auto ranks = spmd(world, allocation, [&](auto& pipeline) {
      const ColumnParallelLinear up{pipeline, View<const float>(w1.data(), {middle, in}), b1};
      const RowParallelLinear down{pipeline, View<const float>(w2.data(), {out, middle}), b2};
      const auto input = pipeline.replicate(View<const float>(x.data(), {tokens, in}));
      const auto y = pipeline.run(input, up, troika::gelu, down, troika::to<Replicate>);
      const auto by_tokens = pipeline.run(input, up, troika::gelu, down, troika::to<Shard<0>>, troika::to<Replicate>);
      return std::pair(copied(y.values()), copied(by_tokens.values()));
    });
    for (const auto& [y, by_tokens] : ranks) {
      CHECK(worst(y, expected) < 1e-4);
      CHECK(y == ranks[0].first);  // the same bits
      CHECK(by_tokens == y);       // reduce_scatter and all_gather make the same sums
    }
  };
  for (const int world : test_worlds) {
    INFO(world << " ranks");
    check(world, troika::StaticAllocation{});
    check(world, troika::StaticAllocation{uneven_weights(world)});
  }
}

TEST_CASE("weights in bf16 are within the rounding of bf16, and split as exactly as in f32") {
  constexpr std::int64_t tokens = 5, in = 130, middle = 71, out = 37;
  const auto x = random_values(tokens * in, 1), w1 = random_values(middle * in, 2), w2 = random_values(out * middle, 4);
  const auto rounded = [](const std::vector<float>& values) {
    std::vector<troika::bf16> result;
    for (const float value : values) result.emplace_back(value);
    return result;
  };
  const auto up16 = rounded(w1), down16 = rounded(w2);
  const auto hidden = product({x.begin(), x.end()}, copied(std::span(up16)), {}, tokens, in, middle);
  const auto expected = product(hidden, copied(std::span(down16)), {}, tokens, middle, out);
  double size = 0;
  for (const double value : expected) size = std::max(size, std::abs(value));

  std::vector<float> alone;
  for (const auto precision : {troika::Precision::fast, troika::Precision::exact}) {
    for (const int world : test_worlds) {
      const auto ranks =
          spmd(world, troika::StaticAllocation{uneven_weights(world)},
               [&](auto& pipeline) {
                 const ColumnParallelLinear up{pipeline, View<const troika::bf16>(up16.data(), {middle, in})};
                 const RowParallelLinear down{pipeline, View<const troika::bf16>(down16.data(), {out, middle})};
                 const auto input = pipeline.replicate(View<const float>(x.data(), {tokens, in}));
                 return copied(pipeline.run(input, up, down, troika::to<Replicate>).values());
               },
               {.precision = precision});
      const bool exact = precision == troika::Precision::exact;
      INFO(world << " ranks, exact " << exact);
      for (const auto& y : ranks) {
        CHECK(y == ranks[0]);
        CHECK(worst(y, expected) < (exact ? 1e-5 : 1e-2) * size);
      }
      if (world == 1)
        alone = ranks[0];
      else
        CHECK(worst(ranks[0], {alone.begin(), alone.end()}) < (exact ? 1e-5 : 2e-3) * size);
    }
  }
}

TEST_CASE("more ranks than rows: the last ranks hold nothing and the product is right") {
  const auto x = random_values(2 * 4, 1), w = random_values(3 * 4, 2);
  const auto expected = product({x.begin(), x.end()}, w, {}, 2, 4, 3);
  const auto ranks = spmd(8, [&](auto& pipeline) {
    const ColumnParallelLinear column{pipeline, View<const float>(w.data(), {3, 4})};
    const RowParallelLinear row{pipeline, View<const float>(w.data(), {3, 4})};
    const auto input = pipeline.replicate(View<const float>(x.data(), {2, 4}));
    return std::pair(copied(pipeline.run(input, column, troika::to<Replicate>).values()),
                     copied(pipeline.run(input, troika::to<Shard<1>>, row, troika::to<Replicate>).values()));
  });
  for (const auto& [a, b] : ranks) {
    CHECK(worst(a, expected) < 1e-5);
    CHECK(worst(b, expected) < 1e-5);
  }
}

TEST_CASE("a gated product multiplies silu of one half with the other") {
  constexpr std::int64_t in = 9, out = 14;
  const auto x = random_values(in, 1), g = random_values(out * in, 2), u = random_values(out * in, 3);
  auto expected = product({x.begin(), x.end()}, g, {}, 1, in, out);
  const auto up = product({x.begin(), x.end()}, u, {}, 1, in, out);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] *= up[i] / (1 + std::exp(-expected[i]));
  for (const int world : test_worlds) {
    const auto ranks = spmd(world, [&](auto& pipeline) {
      const troika::GatedColumnParallelLinear<troika::HostDevice> gated{
          {pipeline, View<const float>(g.data(), {out, in})}, {pipeline, View<const float>(u.data(), {out, in})}};
      const auto input = pipeline.replicate(View<const float>(x.data(), {1, in}));
      return copied(pipeline.run(input, gated, troika::to<Replicate>).values());
    });
    for (const auto& y : ranks) CHECK(worst(y, expected) < 1e-5);
  }
}

TEST_CASE("an embedding split by vocabulary gives the rows of the table, and its transpose the logits") {
  constexpr std::int64_t vocab = 23, features = 6;
  const auto table = random_values(vocab * features, 1);
  const std::vector<std::int32_t> ids{0, 22, 7, 7, 11};
  for (const int world : test_worlds) {
    const auto ranks = spmd(world, [&](auto& pipeline) {
      const auto rows = pipeline.partition(vocab);
      const troika::VocabParallelEmbedding<troika::HostDevice> embedding(
          troika::detail::slice_weight<troika::HostDevice>(pipeline.stream(),
                                                           View<const float>(table.data(), {vocab, features}),
                                                           rows[pipeline.rank()], {0, features}),
          rows, pipeline.rank());
      const auto input = pipeline.replicate(View<const std::int32_t>(ids.data(), {5}));
      const auto x = pipeline.run(input, embedding, troika::to<Replicate>);
      const auto logits = pipeline.run(x, embedding.as_projection(), troika::to<Replicate>);
      return std::pair(copied(x.values()), copied(logits.values()));
    });
    std::vector<double> expected;
    for (const auto id : ids)
      for (int j = 0; j < features; ++j) expected.push_back(table[static_cast<std::size_t>(id * features + j)]);
    const auto logits = product(expected, table, {}, 5, features, vocab);
    for (const auto& [x, y] : ranks) {
      CHECK(worst(x, expected) == 0);
      CHECK(worst(y, logits) < 1e-5);
    }
  }
}

TEST_CASE("weights that do not fit are refused with the shapes") {
  const auto w = random_values(12, 1);
  const auto message_of = [&](auto attempt) {
    return spmd(2, [&](auto& pipeline) {
      try {
        attempt(pipeline);
      } catch (const troika::Error& error) {
        return std::string(error.what());
      }
      return std::string();
    })[0];
  };
  const View<const float> whole(w.data(), {4, 3}), flat(w.data(), {12});
  const auto contains = [](const char* text) { return Catch::Matchers::ContainsSubstring(text); };
  CHECK_THAT(message_of([&](auto& p) { (void)ColumnParallelLinear(p, whole, std::vector<float>(3)); }),
             contains("bias of 3 does not fit 4"));
  CHECK_THAT(message_of([&](auto& p) { (void)ColumnParallelLinear(p, flat); }), contains("(12)"));
  CHECK_THAT(message_of([&](auto& p) {
               const ColumnParallelLinear layer{p, whole};
               (void)p.run(p.replicate(View<const float>(w.data(), {3, 4})), layer);
             }),
             contains("(tokens, 3), not (3, 4)"));
  CHECK_THAT(
      message_of([&](auto& p) {
        const double weights[] = {1, 3};
        const RowParallelLinear layer{p, View<const float>(w.data(), {3, 4}), {}, Partition::weighted(4, weights)};
        (void)p.run(p.replicate(View<const float>(w.data(), {3, 4})), troika::to<Shard<1>>, layer);
      }),
      contains("the input is split as 0..1 | 2..3, the weight as 0..0 | 1..3"));
}
