// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <device/quantised.hpp>
#include <kernels/embedding.cuh>
#include <kernels/gemv.cuh>
#include <kernels/gemv_truth.hpp>

#include "kernel_test.hpp"

using namespace troika;
using namespace troika::test;

namespace {

std::vector<std::uint8_t> stored(WeightType type, std::int64_t elements, unsigned seed) {
  std::vector<std::uint8_t> bytes(row_bytes(type, elements));
  if (is_quantised(type)) {
    const auto blocks = random_blocks(type, elements, seed);
    std::memcpy(bytes.data(), blocks.data(), bytes.size());
    return bytes;
  }
  const auto values = numbers(static_cast<std::size_t>(elements), seed);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const f16 half(values[i]);
    const bf16 brain(values[i]);
    const std::size_t each = layout_of(type).bytes;
    const void* const from = type == WeightType::f32   ? static_cast<const void*>(&values[i])
                             : type == WeightType::f16 ? static_cast<const void*>(&half)
                                                       : static_cast<const void*>(&brain);
    std::memcpy(bytes.data() + i * each, from, each);
  }
  return bytes;
}

std::vector<WeightType> all_types() {
  std::vector<WeightType> types{WeightType::f32, WeightType::f16, WeightType::bf16};
  types.insert(types.end(), quantised_types.begin(), quantised_types.end());
  return types;
}
std::vector<std::int64_t> lengths(WeightType type) {
  if (!is_quantised(type)) return {1, 8, 13, 264};
  const std::int64_t block = layout_of(type).block;
  return {block, 3 * block, 256 + 11 * block};
}

}  // namespace

TEST_CASE("embedding kernels give the values of core/dequantize.hpp bit for bit, and zeros for other shards") {
  for (const auto type : all_types()) {
    for (const auto d : lengths(type)) {
      CAPTURE(to_string(type), d);
      const std::int64_t rows = 3, first = 10;
      const auto table = stored(type, rows * d, 5);
      const std::vector<std::int32_t> ids{12, 9, 10, 13, 11};
      Memory<std::uint8_t> weights(table);
      Memory<std::int32_t> tokens(ids);
      Memory<float> y(ids.size() * static_cast<std::size_t>(d));
      Machine machine;
      cuda::embedding(type, {tokens.data(), weights.data(), y.data(), std::ssize(ids), rows, d, first},
                      machine.stream(0));
      machine.run();
      std::vector<float> expected;
      for (const auto id : ids) {
        std::vector<float> row(static_cast<std::size_t>(d));
        if (id >= first && id < first + rows) {
          dequantize(type,
                     reinterpret_cast<const std::byte*>(table.data()) +
                         row_bytes(type, d) * static_cast<std::size_t>(id - first),
                     row);
        }
        expected.insert(expected.end(), row.begin(), row.end());
      }
      CHECK(y.values() == expected);
      CHECK(y.intact());
    }
  }
}

TEST_CASE("products of few rows with weights of every type equal sums in double") {
  for (const auto type : all_types()) {
    for (const auto k : lengths(type)) {
      for (const std::int64_t m : {1, 3, 6}) {
        const std::int64_t n = 5;
        CAPTURE(to_string(type), k, m);
        const auto matrix = stored(type, n * k, 6);
        const auto x = numbers(static_cast<std::size_t>(m * k), 7);
        Memory<std::uint8_t> weights(matrix);
        Memory<float> rows(x), y(static_cast<std::size_t>(m * n));
        Machine machine(schedules()[static_cast<std::size_t>(m % 3)]);
        cuda::gemv(type, {weights.data(), rows.data(), y.data(), m, n, k}, machine.stream(0));
        machine.run();
        std::size_t wrong_values = 0;
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t j = 0; j < n; ++j) {
            const auto* const row =
                reinterpret_cast<const std::byte*>(matrix.data()) + row_bytes(type, k) * static_cast<std::size_t>(j);
            const auto of_x = std::span(x).subspan(static_cast<std::size_t>(i * k), static_cast<std::size_t>(k));
            std::vector<float> size(of_x.size());
            dequantize(type, row, size);
            double magnitude = 0;  // what rounding is relative to
            for (std::size_t e = 0; e < size.size(); ++e)
              magnitude += std::abs(static_cast<double>(size[e]) * static_cast<double>(of_x[e]));
            const double got = static_cast<double>(y.values()[static_cast<std::size_t>(i * n + j)]);
            wrong_values += !(std::abs(got - truth::dot(type, row, of_x)) <= 2e-6 * magnitude);
          }
        }
        CHECK(wrong_values == 0);
        CHECK(y.intact());
      }
    }
  }
}
