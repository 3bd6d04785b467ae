// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <kernels/attention.cuh>
#include <kernels/attention_truth.hpp>

#include "attention_case.hpp"

using namespace troika;
using namespace troika::test;

namespace {

using Case = AttentionCase;

bool attention_is_right(const Case& c, Machine& machine) {
  AttentionMemory memory(c);
  cuda::attention(memory.arguments(), memory.heads(), machine.stream(0));
  machine.run();
  std::vector<double> expected;
  for (int t = 0; t < c.tokens; ++t) {
    for (int h = 0; h < memory.heads(); ++h) {
      const auto row =
          truth::attention(memory.query(t, h), memory.keys(t, h), memory.values(t, h), 0.3, static_cast<double>(c.cap));
      expected.insert(expected.end(), row.begin(), row.end());
    }
  }
  return wrong(memory.y(), expected, 3e-6) == 0 && memory.intact();
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
