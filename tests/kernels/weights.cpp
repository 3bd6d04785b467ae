// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <device/quantised.hpp>
#include <kernels/embedding.cuh>
#include <kernels/gemv.cuh>
#include <kernels/gemv_bytes.cuh>
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

// How many elements of y (m, n) are farther from x (m, k) W^T, in double, than `bound` of what is added.
std::size_t wrong_sums(WeightType type, const std::vector<std::uint8_t>& matrix, const std::vector<float>& x,
                       const std::vector<float>& y, std::int64_t m, std::int64_t n, std::int64_t k, double bound) {
  std::size_t wrong = y.size() != static_cast<std::size_t>(m * n);
  std::vector<float> w(static_cast<std::size_t>(k));
  for (std::int64_t j = 0; j < n; ++j) {
    const auto* const row =
        reinterpret_cast<const std::byte*>(matrix.data()) + row_bytes(type, k) * static_cast<std::size_t>(j);
    dequantize(type, row, w);
    for (std::int64_t i = 0; i < m; ++i) {
      const auto of_x = std::span(x).subspan(static_cast<std::size_t>(i * k), static_cast<std::size_t>(k));
      double magnitude = 0;  // what rounding is relative to
      for (std::size_t e = 0; e < w.size(); ++e)
        magnitude += std::abs(static_cast<double>(w[e]) * static_cast<double>(of_x[e]));
      const double got = static_cast<double>(y[static_cast<std::size_t>(i * n + j)]);
      wrong += !(std::abs(got - truth::dot(type, row, of_x)) <= bound * magnitude);
    }
  }
  return wrong;
}

// By a machine of such a schedule: y of rows that are rounded to 8 bits.
template <WeightType type>
std::vector<float> by_bytes(Machine& machine, const std::vector<std::uint8_t>& matrix, const std::vector<float>& x,
                            std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t blocks = 2) {
  Memory<std::uint8_t> weights(matrix);
  Memory<float> rows(x), y(static_cast<std::size_t>(m * n));
  std::vector<cuda::RoundedPiece> rounded(static_cast<std::size_t>(cuda::gemv_rounded_pieces(m, k)));
  cuda::gemv_bytes<type>({weights.data(), rows.data(), y.data(), m, n, k}, rounded.data(), blocks, machine.stream(0));
  machine.run();
  CHECK(y.intact());
  return y.values();
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
    auto sizes = lengths(type);
    if (!is_quantised(type)) sizes.insert(sizes.end(), {1024, 1304});
    for (const auto k : sizes) {
      for (const std::int64_t m : {1, 2, 3, 4, 6}) {
        const std::int64_t n = m == 1 ? 5 : 9;
        CAPTURE(to_string(type), k, m);
        const auto matrix = stored(type, n * k, 6);
        const auto x = numbers(static_cast<std::size_t>(m * k), 7);
        Memory<std::uint8_t> weights(matrix);
        Memory<float> rows(x), y(static_cast<std::size_t>(m * n));
        Machine machine(schedules()[static_cast<std::size_t>(m % 3)]);
        cuda::gemv(type, {weights.data(), rows.data(), y.data(), m, n, k}, machine.stream(0));
        machine.run();
        CHECK(wrong_sums(type, matrix, x, y.values(), m, n, k, 2e-6) == 0);
        CHECK(y.intact());
      }
    }
  }
}

TEST_CASE("products of few rows in 8 bits equal sums in double over what rows are rounded to") {
  const auto check = []<WeightType type>(cuda::TypeConstant<type>, std::int64_t k, std::int64_t m, std::int64_t n) {
    CAPTURE(to_string(type), k, m);
    const auto matrix = stored(type, n * k, 6);
    const auto x = numbers(static_cast<std::size_t>(m * k), 7);
    Machine machine(schedules()[static_cast<std::size_t>(m % 3)]);
    const auto y = by_bytes<type>(machine, matrix, x, m, n, k);
    CHECK(wrong_sums(type, matrix, in_bytes(x), y, m, n, k, 1e-5) == 0);
  };
  for (const auto type : quantised_types) {
    cuda::with_weight_type(type, [&]<WeightType t>(cuda::TypeConstant<t> constant) {
      if constexpr (is_quantised(t)) {
        const std::int64_t block = layout_of(t).block;
        // Less than a piece of 2048, one and some blocks more, and more than are under way at once.
        for (const std::int64_t k : {block, 3 * block, 2048 + 11 * block, 3 * std::int64_t{2048} + block})
          check(constant, k, 1, k < 1000 ? 27 : 9);  // with 27, each block goes on to further rows
        for (std::int64_t m = 2; m <= 8; ++m) check(constant, 2048 + 3 * block, m, 5);
        check(constant, 7 * block, 32, 11);
      }
    });
  }
  check(cuda::TypeConstant<WeightType::q4_0>{}, 8 * 2048, 1, 3);
  check(cuda::TypeConstant<WeightType::q6_k>{}, 8 * 2048 + 256, 1, 3);  // more than a block rounds itself
}

TEST_CASE("products in 8 bits need each of their barriers, and show rows that are no numbers") {
  constexpr auto type = WeightType::q5_0;
  const std::int64_t n = 13, k = 3 * 2048 + 96;
  const auto matrix = stored(type, n * k, 6);
  for (const std::int64_t m : {1, 2}) {
    const auto x = numbers(static_cast<std::size_t>(m * k), 7);
    CHECK(misses_every_barrier([&](Machine& machine) {
      return wrong_sums(type, matrix, in_bytes(x), by_bytes<type>(machine, matrix, x, m, n, k, 1), m, n, k, 1e-5) == 0;
    }));
  }
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    auto x = numbers(static_cast<std::size_t>(2 * k), 7);
    x[static_cast<std::size_t>(k) + 5000] = bad;
    Machine machine;
    const auto y = by_bytes<type>(machine, matrix, x, 2, n, k);
    for (std::size_t i = 0; i < y.size(); ++i) CHECK(std::isnan(y[i]) == (i >= static_cast<std::size_t>(n)));
  }
  std::vector<float> zeros(static_cast<std::size_t>(k));
  Machine machine;
  CHECK(by_bytes<type>(machine, matrix, zeros, 1, n, k) == std::vector<float>(static_cast<std::size_t>(n)));
}
