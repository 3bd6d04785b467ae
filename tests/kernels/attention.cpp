// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <kernels/attention.cuh>
#include <kernels/attention_truth.hpp>

#include "kernel_test.hpp"

using namespace troika;
using namespace troika::test;

namespace {

struct Case {
  int tokens = 1, d = 16, splits = 1;
  std::int64_t kv_tokens = 40;
  KvType type = KvType::f32;
  bool causal = true, paged = false;
  std::int64_t window = 1 << 20;
  float cap = 0;
  std::vector<std::int32_t> heads_of{1, 0, 1, 1, 0};  // the KV head of each query head
};

// Stores floats as a cache would, and makes them what the cache then holds.
std::vector<std::uint8_t> store(KvType type, std::vector<float>& values, std::size_t d, std::vector<float>& scales) {
  std::vector<std::uint8_t> bytes(values.size() * static_cast<std::size_t>(bytes_of(type)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto put = [&](auto value) {
      std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
      return static_cast<float>(value);
    };
    if (type == KvType::f32) values[i] = put(values[i]);
    if (type == KvType::bf16) values[i] = put(bf16(values[i]));
    if (type == KvType::f16) values[i] = put(f16(values[i]));
    if (type == KvType::q8) {
      const float scale = 0.01f * static_cast<float>(1 + i / d % 3);
      if (i % d == 0) scales.push_back(scale);
      values[i] = put(static_cast<std::int8_t>(std::lround(values[i] * 100))) * scale;
    }
  }
  return bytes;
}

bool attention_is_right(const Case& c, Machine& machine) {
  const auto size = [](auto n) { return static_cast<std::size_t>(n); };
  const int heads = static_cast<int>(c.heads_of.size()), kv_heads = 2;
  const std::size_t d = size(c.d), pages = size((c.kv_tokens + kv_page - 1) / kv_page);
  const std::size_t rows = c.paged ? pages * size(kv_page) : size(c.kv_tokens);
  const auto q = numbers(size(c.tokens * heads) * d, 1, -2, 2);
  auto keys = numbers(rows * 2 * d, 2), values = numbers(rows * 2 * d, 3);
  std::vector<float> key_scales, value_scales;
  Memory<std::uint8_t> k(store(c.type, keys, d, key_scales)), v(store(c.type, values, d, value_scales));
  Memory<float> k_scales(key_scales), v_scales(value_scales), queries(q), y(q.size());
  std::vector<std::int32_t> order(pages);
  for (std::size_t i = 0; i < pages; ++i) order[i] = static_cast<std::int32_t>(pages - 1 - i);
  Memory<std::int32_t> page_list(order);
  std::vector<std::int32_t> grouped, start{0};
  for (int kv = 0; kv < kv_heads; ++kv) {
    for (int h = 0; h < heads; ++h) {
      if (c.heads_of[size(h)] == kv) grouped.push_back(h);
    }
    start.push_back(static_cast<std::int32_t>(grouped.size()));
  }
  Memory<std::int32_t> grouped_heads(grouped), starts(start);
  Memory<float> partial(c.splits > 1 ? size(c.splits * c.tokens * heads) * (d + 2) : 0);

  cuda::AttentionArguments a{};
  a.q = queries.data(), a.y = y.data();
  a.type = c.type, a.keys = k.data(), a.values = v.data();
  a.key_scales = k_scales.data(), a.value_scales = v_scales.data();
  a.pages = c.paged ? page_list.data() : nullptr;
  a.grouped = grouped_heads.data(), a.start = starts.data();
  a.heads = heads, a.kv_heads = kv_heads, a.d = c.d;
  a.tokens = c.tokens, a.kv_tokens = c.kv_tokens;
  a.causal = c.causal, a.first_end = c.causal ? c.kv_tokens - c.tokens + 1 : c.kv_tokens, a.window = c.window;
  a.scale = 0.3f, a.cap = c.cap, a.splits = c.splits, a.partial = partial.data();
  cuda::attention(a, heads, machine.stream(0));
  machine.run();

  std::vector<double> expected;
  for (int t = 0; t < c.tokens; ++t) {
    const std::int64_t end = c.causal ? c.kv_tokens - c.tokens + 1 + t : c.kv_tokens;
    const std::int64_t begin = c.causal ? std::max<std::int64_t>(0, end - c.window) : 0;
    for (int h = 0; h < heads; ++h) {
      std::vector<float> own_keys, own_values;
      for (std::int64_t token = begin; token < end; ++token) {
        const std::size_t row =
            c.paged ? size(order[size(token / kv_page)]) * size(kv_page) + size(token % kv_page) : size(token);
        const auto from = static_cast<std::ptrdiff_t>((row * 2 + size(c.heads_of[size(h)])) * d);
        own_keys.insert(own_keys.end(), keys.begin() + from, keys.begin() + from + c.d);
        own_values.insert(own_values.end(), values.begin() + from, values.begin() + from + c.d);
      }
      const auto row = truth::attention(std::span(q).subspan(size(t * heads + h) * d, d), own_keys, own_values, 0.3,
                                        static_cast<double>(c.cap));
      expected.insert(expected.end(), row.begin(), row.end());
    }
  }
  return wrong(y.values(), expected, 3e-6) == 0 && y.intact() && partial.intact();
}

bool right(const Case& c, Schedule schedule = {}) {
  Machine machine(schedule);
  return attention_is_right(c, machine);
}

}  // namespace

TEST_CASE("attention equals softmax and sum in double, one token and many, in one part and in several") {
  for (const auto& schedule : schedules()) {
    for (const int splits : {1, 3}) {
      for (const int tokens : {1, 7}) {
        for (const std::int64_t past : {0, 1, 62}) {
          CAPTURE(static_cast<int>(schedule.order), splits, tokens, past);
          CHECK(right({.tokens = tokens, .splits = splits, .kv_tokens = past + tokens}, schedule));
        }
      }
    }
  }
}

TEST_CASE("attention takes heads of any size up to 256") {
  for (const int d : {1, 31, 33, 64, 80, 128, 129, 256}) {
    CAPTURE(d);
    CHECK(right({.tokens = 2, .d = d, .splits = 2, .kv_tokens = 35}));
  }
}

TEST_CASE("attention reads every type of cache, in rows or in pages") {
  for (const auto type : kv_types) {
    for (const bool paged : {false, true}) {
      CAPTURE(to_string(type), paged);
      CHECK(right({.tokens = 2, .splits = 2, .kv_tokens = 150, .type = type, .paged = paged}));
    }
  }
}

TEST_CASE("attention keeps to windows and caps, and reads all where it is not causal") {
  CHECK(right({.tokens = 5, .splits = 2, .kv_tokens = 90, .window = 9}));
  CHECK(right({.tokens = 5, .kv_tokens = 90, .window = 40, .cap = 0.5f}));
  CHECK(right({.tokens = 9, .splits = 4, .kv_tokens = 9, .causal = false}));
  CHECK(right({.tokens = 3, .splits = 2, .kv_tokens = 0, .causal = false}));
}

TEST_CASE("attention needs each of its barriers") {
  CHECK(misses_every_barrier(
      [](Machine& machine) { return attention_is_right({.tokens = 3, .kv_tokens = 70}, machine); }));
}
