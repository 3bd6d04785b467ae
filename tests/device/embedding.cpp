// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <cstdint>
#include <vector>

#include <troika/device/host/embedding.hpp>

#include "inputs.hpp"

using namespace troika;
using namespace troika::test;

TEMPLATE_TEST_CASE("the shards of an embedding add up to the rows of the whole table", "", float, f16, bf16) {
  const std::int64_t vocabulary = 29;
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    HostStream stream(device);
    for (const auto level : levels()) {
      for (const std::int64_t d : {1, 3, 16, 17, 65, 20000}) {
        const auto table = random_values<TestType>(vocabulary * d, 1);
        const std::vector<std::int32_t> ids{0, 28, 13, 13, 9, 10, 27, 1000};
        const auto count = static_cast<std::int64_t>(ids.size());
        std::vector<float> sum(static_cast<std::size_t>(count * d), 0), y = sum;
        std::int64_t first = 0;
        for (const std::int64_t rows : {10, 0, 3, 16}) {  // uneven shards, one of them empty
          std::fill(y.begin(), y.end(), 77.0f);
          embedding(stream, ids, View<const TestType>{table.data() + first * d, {rows, d}}, first, view(y, {count, d}),
                    level);
          for (std::size_t i = 0; i < y.size(); ++i) sum[i] += y[i];
          first += rows;
        }
        std::int64_t wrong = 0;
        for (std::int64_t i = 0; i < count; ++i) {
          for (std::int64_t j = 0; j < d; ++j) {
            const std::int64_t id = ids[static_cast<std::size_t>(i)];
            const float expected =
                id < vocabulary ? static_cast<float>(table[static_cast<std::size_t>(id * d + j)]) : 0.0f;
            wrong += sum[static_cast<std::size_t>(i * d + j)] != expected;
          }
        }
        CAPTURE(threads, to_string(level), d);
        REQUIRE(wrong == 0);
      }
    }
  }
}

TEST_CASE("a negative token id and shapes that do not fit are errors") {
  HostDevice device;
  HostStream stream(device);
  const auto table = random_values(12, 1);
  std::vector<float> y(8);
  const std::vector<std::int32_t> negative{1, -1}, good{1, 2}, three{1, 2, 0};
  REQUIRE_THROWS_WITH(embedding(stream, negative, view(table, {3, 4}), 0, view(y, {2, 4})),
                      Catch::Matchers::ContainsSubstring("-1"));
  REQUIRE_THROWS_AS(embedding(stream, three, view(table, {3, 4}), 0, view(y, {2, 4})), Error);
  REQUIRE_THROWS_AS(embedding(stream, good, view(table, {4, 3}), 0, view(y, {2, 4})), Error);
}
