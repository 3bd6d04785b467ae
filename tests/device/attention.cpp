// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <troika/device/host/attention.hpp>

#include "inputs.hpp"

using namespace troika;
using namespace troika::test;

namespace {

struct Problem {
  std::int64_t tokens, heads, head_dim, kv_tokens, kv_heads;
  std::vector<std::int32_t> map;
  std::vector<float> q, k, v;
  float scale;

  Problem(std::int64_t queries, std::int64_t query_heads, std::int64_t width, std::int64_t cached,
          std::int64_t cached_heads)
      : tokens(queries),
        heads(query_heads),
        head_dim(width),
        kv_tokens(cached),
        kv_heads(cached_heads),
        q(random_values(tokens * heads * head_dim, 1, -3, 3)),
        k(random_values(kv_tokens * kv_heads * head_dim, 2, -3, 3)),
        v(random_values(kv_tokens * kv_heads * head_dim, 3)),
        scale(1 / std::sqrt(static_cast<float>(head_dim))) {
    for (std::int64_t h = 0; h < heads; ++h) map.push_back(static_cast<std::int32_t>(h * kv_heads / heads));
  }

  std::vector<float> run(HostDevice& device, AttentionMask mask, CpuLevel level, float cap = 0) const {
    HostStream stream(device);
    std::vector<float> y(q.size(), 77);
    attention(stream, view(q, {tokens, heads, head_dim}), view(k, {kv_tokens, kv_heads, head_dim}),
              view(v, {kv_tokens, kv_heads, head_dim}), map, mask, scale, view(y, {tokens, heads, head_dim}), cap,
              level);
    return y;
  }

  // Against softmax in double, with `may_read(query, key)` written out by the test.
  template <class MayRead>
  std::int64_t wrong(const std::vector<float>& y, MayRead may_read, double cap = 0) const {
    std::int64_t count = 0;
    std::vector<double> score(static_cast<std::size_t>(kv_tokens));
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t kv = map[static_cast<std::size_t>(h)];
        double most = -INFINITY, total = 0, sensitivity = 0;
        for (std::int64_t s = 0; s < kv_tokens; ++s) {
          if (!may_read(t, s)) continue;
          double dot = 0, size = 0;
          for (std::int64_t i = 0; i < head_dim; ++i) {
            const double product = double(q[static_cast<std::size_t>((t * heads + h) * head_dim + i)]) * double(scale) *
                                   double(k[static_cast<std::size_t>((s * kv_heads + kv) * head_dim + i)]);
            dot += product;
            size += std::abs(product);
          }
          if (cap > 0) dot = cap * std::tanh(dot / cap);
          score[static_cast<std::size_t>(s)] = dot;
          most = std::max(most, dot);
          sensitivity = std::max(sensitivity, size);
        }
        for (std::int64_t s = 0; s < kv_tokens; ++s)
          if (may_read(t, s)) total += std::exp(score[static_cast<std::size_t>(s)] - most);
        for (std::int64_t i = 0; i < head_dim; ++i) {
          double sum = 0, size = 0;
          for (std::int64_t s = 0; s < kv_tokens; ++s) {
            if (!may_read(t, s)) continue;
            const double part = std::exp(score[static_cast<std::size_t>(s)] - most) / total *
                                double(v[static_cast<std::size_t>((s * kv_heads + kv) * head_dim + i)]);
            sum += part;
            size += std::abs(part);
          }
          // A weight is as uncertain as its score; |values| are at most 1.
          const double bound = epsilon * (size + 1) * (16 + 4 * sensitivity + static_cast<double>(kv_tokens) / 16);
          count += !close(double(y[static_cast<std::size_t>((t * heads + h) * head_dim + i)]), sum, bound);
        }
      }
    }
    return count;
  }
};

}  // namespace

TEST_CASE("causal attention equals softmax in double: prefill, decode and chunks between") {
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    for (const auto level : levels()) {
      for (const std::int64_t head_dim : {1, 7, 16, 64, 80}) {
        for (const std::int64_t tokens : {1, 2, 3, 5, 17, 65}) {
          for (const std::int64_t offset : {0, 1, 63, 130, 257}) {
            if ((head_dim + tokens + offset) % 3 != 0) continue;
            for (const auto& [heads, kv_heads] : {std::pair<int, int>{1, 1}, {3, 3}, {6, 2}, {12, 1}}) {
              const Problem problem(tokens, heads, head_dim, offset + tokens, kv_heads);
              const auto y = problem.run(device, AttentionMask::causal(offset), level);
              CAPTURE(threads, to_string(level), head_dim, tokens, offset, heads, kv_heads);
              REQUIRE(problem.wrong(y, [&](std::int64_t t, std::int64_t s) { return s <= offset + t; }) == 0);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("capped scores equal the softmax of cap tanh(score / cap) in double") {
  auto device = device_of(2);
  for (const auto level : levels()) {
    for (const std::int64_t tokens : {1, 3, 33, 130}) {
      const Problem problem(tokens, 6, 20, 40 + tokens, 3);
      for (const float cap : {0.5f, 2.0f, 50.0f}) {
        CAPTURE(to_string(level), tokens, cap);
        const auto y = problem.run(device, AttentionMask::causal(40, 25), level, cap);
        const auto may_read = [](std::int64_t t, std::int64_t s) { return s <= 40 + t && s > 40 + t - 25; };
        REQUIRE(problem.wrong(y, may_read, double{cap}) == 0);
        if (cap < 50) REQUIRE(problem.wrong(y, may_read) > 0);
      }
    }
  }
}

TEST_CASE("sliding windows and bidirectional attention equal softmax in double") {
  auto device = device_of(2);
  for (const auto level : levels()) {
    for (const std::int64_t tokens : {1, 7, 63, 129}) {
      const std::int64_t offset = 97, all = offset + tokens;
      const Problem problem(tokens, 4, 32, all, 2);
      CAPTURE(to_string(level), tokens);
      for (const std::int64_t window : {1, 2, 50, 128, 1000}) {
        CAPTURE(window);
        const auto y = problem.run(device, AttentionMask::causal(offset, window), level);
        REQUIRE(problem.wrong(y, [&](std::int64_t t, std::int64_t s) {
          return s <= offset + t && s > offset + t - window;
        }) == 0);
      }
      REQUIRE(problem.wrong(problem.run(device, AttentionMask::bidirectional(), level),
                            [](std::int64_t, std::int64_t) { return true; }) == 0);
      for (const std::int64_t valid : {std::int64_t{1}, std::int64_t{63}, all}) {
        REQUIRE(problem.wrong(problem.run(device, AttentionMask::bidirectional(valid), level),
                              [&](std::int64_t, std::int64_t s) { return s < valid; }) == 0);
      }
    }
  }
}

TEST_CASE("query heads may read KV heads in any order, and leave some unread") {
  auto device = device_of(2);
  for (const auto level : levels()) {
    for (const std::int64_t tokens : {1, 30}) {
      Problem problem(tokens, 5, 24, 150, 4);
      problem.map = {3, 0, 3, 1, 0};
      const auto y = problem.run(device, AttentionMask::causal(150 - tokens), level);
      REQUIRE(problem.wrong(y, [&](std::int64_t t, std::int64_t s) { return s <= 150 - tokens + t; }) == 0);
    }
  }
}

TEST_CASE("what a cache holds past the last readable key is never read") {
  HostDevice device;
  for (const auto level : levels()) {
    for (const std::int64_t tokens : {1, 20}) {
      Problem problem(tokens, 4, 16, 200, 2);
      for (std::size_t i = 150 * 2 * 16; i < problem.k.size(); ++i) {
        problem.k[i] = problem.v[i] = std::numeric_limits<float>::quiet_NaN();
      }
      const auto causal = problem.run(device, AttentionMask::causal(150 - tokens), level);
      const auto both = problem.run(device, AttentionMask::bidirectional(150), level);
      REQUIRE(std::none_of(causal.begin(), causal.end(), [](float value) { return std::isnan(value); }));
      REQUIRE(std::none_of(both.begin(), both.end(), [](float value) { return std::isnan(value); }));
    }
  }
}

TEST_CASE("scores of hundreds do not overflow, and NaN reaches exactly the heads that read it") {
  HostDevice device;
  for (const auto level : levels()) {
    for (const std::int64_t tokens : {1, 20}) {
      Problem problem(tokens, 4, 16, 300, 2);
      problem.scale = 60;
      auto y = problem.run(device, AttentionMask::causal(300 - tokens), level);
      REQUIRE(problem.wrong(y, [&](std::int64_t t, std::int64_t s) { return s <= 300 - tokens + t; }) == 0);
      problem.k[(7 * 2 + 1) * 16 + 3] = std::numeric_limits<float>::quiet_NaN();  // key 7 of KV head 1
      y = problem.run(device, AttentionMask::causal(300 - tokens), level);
      for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(std::isnan(y[i]) == (i / 16 % 4 >= 2));
    }
  }
}

TEST_CASE("a rank without heads, a batch without tokens and a query without keys are legal") {
  HostDevice device;
  HostStream stream(device);
  std::vector<float> none;
  const std::vector<std::int32_t> no_heads;
  attention(stream, view(std::as_const(none), {5, 0, 16}), view(std::as_const(none), {5, 0, 16}),
            view(std::as_const(none), {5, 0, 16}), no_heads, AttentionMask::causal(0), 1, view(none, {5, 0, 16}));
  const Problem empty(0, 4, 16, 9, 2), keyless(3, 4, 16, 0, 2);
  REQUIRE(empty.run(device, AttentionMask::causal(9), cpu_level()).empty());
  for (const float value : keyless.run(device, AttentionMask::bidirectional(), cpu_level())) REQUIRE(value == 0);
  const Problem masked(3, 4, 16, 8, 2);
  for (const float value : masked.run(device, AttentionMask::bidirectional(0), cpu_level())) REQUIRE(value == 0);
}

TEST_CASE("attention refuses maps, masks and shapes that do not fit") {
  HostDevice device;
  Problem problem(3, 4, 16, 8, 2);
  REQUIRE_THROWS_WITH(problem.run(device, AttentionMask::causal(6), cpu_level()),
                      Catch::Matchers::ContainsSubstring("9 keys, but there are 8"));
  REQUIRE_THROWS_AS(problem.run(device, AttentionMask::bidirectional(9), cpu_level()), Error);
  problem.map[2] = 2;
  REQUIRE_THROWS_WITH(problem.run(device, AttentionMask::causal(5), cpu_level()),
                      Catch::Matchers::ContainsSubstring("KV head 2"));
  problem.map.pop_back();
  REQUIRE_THROWS_AS(problem.run(device, AttentionMask::causal(5), cpu_level()), Error);
  REQUIRE_THROWS_AS(AttentionMask::causal(-1), Error);
  REQUIRE_THROWS_AS(AttentionMask::causal(0, 0), Error);
  REQUIRE_THROWS_AS(AttentionMask::bidirectional(-1), Error);
}

TEST_CASE("scratch of attention does not grow with the number of tokens, and comes from the pool") {
  HostDevice device;
  const Problem small(64, 4, 32, 64, 2), large(700, 4, 32, 700, 2);
  small.run(device, AttentionMask::causal(0), cpu_level());
  const auto reserved = device.memory_reserved();
  large.run(device, AttentionMask::causal(0), cpu_level());
  REQUIRE(device.memory_reserved() == reserved);
}

TEST_CASE(
    "on an invariant device a query has the same bits alone, in a chunk and among all, with a window or without") {
  for (const auto level : levels()) {
    for (const std::int64_t d : {8, 40, 64}) {
      const std::int64_t tokens = 300, heads = 3, kv_heads = 1;
      const Problem all(tokens, heads, d, tokens, kv_heads);
      for (const std::int64_t window : {0, 150}) {
        const auto mask = [&](std::int64_t cached) {
          return window ? AttentionMask::causal(cached, window) : AttentionMask::causal(cached);
        };
        auto device = device_of(1, Precision::fast, true), team = device_of(2, Precision::fast, true);
        const auto whole = all.run(device, mask(0), level, 3);
        CHECK(all.run(team, mask(0), level, 3) == whole);
        for (const std::int64_t some : {1, 2, 7, 30}) {
          for (const std::int64_t first : {0, 1, 127, 128, 200, 270}) {
            Problem part = all;
            part.tokens = some;
            part.kv_tokens = first + some;
            const auto row = heads * d;
            part.q.assign(all.q.begin() + first * row, all.q.begin() + (first + some) * row);
            const auto y = part.run(device, mask(first), level, 3);
            INFO(to_string(level) << ", head_dim " << d << ", window " << window << ", " << some << " from " << first);
            CHECK(std::equal(y.begin(), y.end(), whole.begin() + first * row));
          }
        }
      }
    }
  }
}
