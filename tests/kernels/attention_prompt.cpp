// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <kernels/attention.cuh>
#include <kernels/attention_prompt.cuh>
#include <kernels/attention_truth.hpp>

#include "attention_case.hpp"

using namespace troika;
using namespace troika::test;

namespace {

using Case = AttentionCase;

template <class T>
std::vector<float> rounded(std::vector<float> values) {
  for (float& value : values) value = static_cast<float>(T(value));
  return values;
}

// How many results are farther from the truth than rounding explains. First, of scaled queries, keys and values as the
// kernel rounds them: then weights are off by `unit` of themselves, and their sum is not. Then of all as they are: a score
// is off by `unit` of each of its terms for the query and, where the cache is not of T, for the key; weights by twice that
// of the score that is farthest off, since their sum is off, too.
template <class T>
std::size_t wrong_rows(const Case& c, AttentionMemory& memory) {
  const double unit = dtype_of<T> == DType::f16 ? 0x1p-11 : 0x1p-8, cap = static_cast<double>(c.cap);
  const bool of_t = bytes_of(c.type) == 2;
  const auto y = memory.y();
  std::size_t count = 0, at = 0;
  for (int token = 0; token < c.tokens; ++token) {
    for (int head = 0; head < memory.heads(); ++head) {
      const std::span<const float> query = memory.query(token, head);
      const auto keys = memory.keys(token, head), values = memory.values(token, head);
      auto sizes = values;
      for (float& value : sizes) value = std::abs(value);
      std::vector<float> scaled(query.begin(), query.end());
      for (float& value : scaled) value *= c.cap > 0 ? memory.scale / c.cap : memory.scale * cuda::log2_e;
      const double rest = c.cap > 0 ? cap : std::log(2.0);
      const auto near = truth::attention(rounded<T>(scaled), rounded<T>(keys), rounded<T>(values), rest, cap);
      const auto near_size = truth::attention(rounded<T>(scaled), rounded<T>(keys), sizes, rest, cap);
      const auto far = truth::attention(query, keys, values, memory.scale, cap);
      const auto far_size = truth::attention(query, keys, sizes, memory.scale, cap);
      double off = 0;
      for (std::size_t k = 0; k < keys.size(); k += query.size()) {
        double terms = 0;
        for (std::size_t i = 0; i < query.size(); ++i)
          terms += static_cast<double>(memory.scale * std::abs(query[i] * keys[k + i]));
        off = std::max(off, terms * unit * (of_t ? 1 : 2));
      }
      for (std::size_t i = 0; i < query.size(); ++i, ++at) {
        const double value = static_cast<double>(y[at]);
        count += !(std::abs(value - near[i]) <= 1.02 * unit * near_size[i] + 1e-5);
        count += !(std::abs(value - far[i]) <= (std::expm1(2 * off) + 2.1 * unit) * far_size[i] + 1e-5);
      }
    }
  }
  return count + (at != y.size());
}

bool attention_is_right(const Case& c, Machine& machine) {
  AttentionMemory memory(c);
  const auto a = memory.arguments();
  const std::int64_t rows = std::int64_t{c.tokens} * memory.heads();  // of a KV head there are less
  const bool half = c.type == KvType::f16;
  half ? cuda::attend_prompt<f16>(a, rows, machine.stream(0)) : cuda::attend_prompt<bf16>(a, rows, machine.stream(0));
  if (a.splits > 1) cuda::merge_attention(a, machine.stream(0));
  machine.run();
  return (half ? wrong_rows<f16>(c, memory) : wrong_rows<bf16>(c, memory)) == 0 && memory.intact();
}

bool right(const Case& c, Schedule schedule = {}) {
  Machine machine(schedule);
  return attention_is_right(c, machine);
}

// Query heads of each of two KV heads, which take turns.
std::vector<std::int32_t> groups_of(int heads) {
  std::vector<std::int32_t> all;
  for (int i = 0; i < 2 * heads; ++i) all.push_back(i % 2);
  return all;
}

}  // namespace

TEST_CASE("prompts' attention on tensor cores equals the truth as far as rounding goes, in every order of threads") {
  for (const auto& schedule : schedules()) {
    for (const int splits : {1, 3}) {
      CAPTURE(static_cast<int>(schedule.order), splits);
      CHECK(right({.tokens = 45, .splits = splits, .kv_tokens = 110, .type = KvType::bf16}, schedule));
    }
  }
}

TEST_CASE("prompts' attention takes heads of any multiple of 8 features up to 256") {
  for (const int d : {8, 40, 64, 72, 80, 96, 112, 128, 136, 192, 256}) {
    CAPTURE(d);
    CHECK(right({.tokens = 11, .d = d, .kv_tokens = 41, .type = d % 16 == 0 ? KvType::bf16 : KvType::f16}));
  }
}

TEST_CASE("prompts' attention reads every type of cache, in rows or in pages") {
  for (const auto type : kv_types) {
    for (const bool paged : {false, true}) {
      CAPTURE(to_string(type), paged);
      CHECK(right({.tokens = 20, .d = 40, .splits = 2, .kv_tokens = 140, .type = type, .paged = paged}));
    }
  }
}

TEST_CASE("prompts' attention shares a KV head among any number of query heads") {
  for (const int heads : {1, 3, 4, 7, 8}) {
    CAPTURE(heads);
    CHECK(right({.tokens = 37, .kv_tokens = 70, .type = KvType::bf16, .heads_of = groups_of(heads)}));
  }
  // Of unequal ones, one without any.
  CHECK(right({.tokens = 50, .kv_tokens = 50, .type = KvType::f16, .heads_of = {2, 2, 0, 2, 2, 2}, .kv_heads = 3}));
}

TEST_CASE("prompts' attention keeps to windows and caps, and reads all where it is not causal") {
  CHECK(right({.tokens = 60, .kv_tokens = 190, .type = KvType::bf16, .window = 9}));
  CHECK(right({.tokens = 60, .splits = 2, .kv_tokens = 290, .type = KvType::f16, .paged = true, .window = 65}));
  CHECK(right({.tokens = 30, .kv_tokens = 90, .type = KvType::f16, .window = 40, .cap = 0.5f}));
  CHECK(right({.tokens = 40, .splits = 4, .kv_tokens = 129, .type = KvType::f16, .causal = false, .cap = 3}));
  CHECK(right({.tokens = 40, .kv_tokens = 1, .type = KvType::bf16, .causal = false}));
  CHECK(right({.tokens = 40, .splits = 2, .kv_tokens = 0, .type = KvType::bf16, .causal = false}));
}

TEST_CASE("prompts' attention needs each of its barriers") {
  CHECK(misses_every_barrier([](Machine& machine) {
    return attention_is_right({.tokens = 40, .kv_tokens = 140, .type = KvType::bf16, .heads_of = {0}, .kv_heads = 1},
                              machine);
  }));
}
