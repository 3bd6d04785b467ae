// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <vector>

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

// How many elements of y (m, n) are farther from x (m, k) W^T + bias, in double, than `bound` of what is added.
std::size_t wrong_sums(WeightType type, const std::vector<std::uint8_t>& matrix, const std::vector<float>& x,
                       const std::vector<float>& y, std::int64_t m, std::int64_t n, std::int64_t k, double bound,
                       const std::vector<float>& bias = {}) {
  std::size_t wrong = y.size() != static_cast<std::size_t>(m * n);
  std::vector<float> w(static_cast<std::size_t>(k));
  for (std::int64_t j = 0; j < n; ++j) {
    const auto* const row =
        reinterpret_cast<const std::byte*>(matrix.data()) + row_bytes(type, k) * static_cast<std::size_t>(j);
    dequantize(type, row, w);
    for (std::int64_t i = 0; i < m; ++i) {
      const auto of_x = std::span(x).subspan(static_cast<std::size_t>(i * k), static_cast<std::size_t>(k));
      const double start = bias.empty() ? 0 : static_cast<double>(bias[static_cast<std::size_t>(j)]);
      double magnitude = std::abs(start);  // what rounding is relative to
      for (std::size_t e = 0; e < w.size(); ++e)
        magnitude += std::abs(static_cast<double>(w[e]) * static_cast<double>(of_x[e]));
      const double got = static_cast<double>(y[static_cast<std::size_t>(i * n + j)]);
      wrong += !(std::abs(got - start - truth::dot(type, row, of_x)) <= bound * magnitude);
    }
  }
  return wrong;
}

cuda::GemvArguments alone(Memory<std::uint8_t>& weights, Memory<float>& x, Memory<float>& y, std::int64_t m,
                          std::int64_t n, std::int64_t k) {
  const cuda::GemvProduct product{weights.data(), y.data(), static_cast<int>(n)};
  return {x.data(), m, k, {&product, 1}};
}

// By a machine of such a schedule: y of rows that are rounded to 8 bits.
template <WeightType type>
std::vector<float> by_bytes(Machine& machine, const std::vector<std::uint8_t>& matrix, const std::vector<float>& x,
                            std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t blocks = 2) {
  Memory<std::uint8_t> weights(matrix);
  Memory<float> rows(x), y(static_cast<std::size_t>(m * n));
  std::vector<cuda::RoundedPiece> rounded(static_cast<std::size_t>(cuda::gemv_rounded_pieces(m, k)));
  cuda::gemv_bytes<type>(alone(weights, rows, y, m, n, k), rounded.data(), blocks, machine.stream(0));
  machine.run();
  CHECK(y.intact());
  return y.values();
}

// Products of x (m, k), `like` it where weights meet it, with matrices of n rows each, every other one with a bias:
// multiply(arguments, stream) of all at once gives the bits of each alone, which are right.
template <class Multiply>
void check_together(WeightType type, const std::vector<int>& n, std::int64_t k, std::int64_t m,
                    const std::function<std::vector<float>(const std::vector<float>&)>& like, double bound,
                    Multiply&& multiply) {
  CAPTURE(to_string(type), k, m, n);
  const auto x = numbers(static_cast<std::size_t>(m * k), 7);
  Memory<float> rows(x);
  std::deque<Memory<std::uint8_t>> weights;
  std::deque<Memory<float>> biases, at_once, one_by_one;
  std::vector<cuda::GemvProduct> products;
  for (std::size_t i = 0; i < n.size(); ++i) {
    weights.emplace_back(stored(type, n[i] * k, 6 + static_cast<unsigned>(i)));
    biases.emplace_back(i % 2 == 0 ? numbers(static_cast<std::size_t>(n[i]), 8) : std::vector<float>());
    for (auto* y : {&at_once, &one_by_one}) y->emplace_back(static_cast<std::size_t>(m * n[i]));
    products.push_back({weights[i].data(), at_once[i].data(), n[i], i % 2 == 0 ? biases[i].data() : nullptr});
  }
  const auto run = [&](std::span<const cuda::GemvProduct> some) {
    Machine machine(schedules()[static_cast<std::size_t>(m % 3)]);
    multiply(cuda::GemvArguments(rows.data(), m, k, some), machine.stream(0));
    machine.run();
  };
  run(products);
  for (std::size_t i = 0; i < n.size(); ++i) {
    auto one = products[i];
    one.y = one_by_one[i].data();
    run({&one, 1});
    const auto y = at_once[i].values();
    CHECK(y == one_by_one[i].values());  // of which no number equals itself
    CHECK(wrong_sums(type, weights[i].values(), like(x), y, m, n[i], k, bound, biases[i].values()) == 0);
    CHECK(at_once[i].intact());
  }
}

const std::vector<std::vector<int>> uneven_rows{{1, 7, 33}, {7, 1, 2}, {5, 4}, {2, 1, 1}};

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
        cuda::gemv(type, alone(weights, rows, y, m, n, k), machine.stream(0));
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

TEST_CASE("several products of few rows in one launch have the bits of one by one") {
  for (const auto type : all_types()) {
    for (const auto k : lengths(type)) {
      for (std::int64_t m = 1; m <= 9; ++m) {
        const auto& n = uneven_rows[static_cast<std::size_t>(m - 1) % uneven_rows.size()];
        check_together(
            type, n, k, m, [](const auto& x) { return x; }, 2e-6,
            [&](const auto& arguments, auto* stream) { cuda::gemv(type, arguments, stream); });
      }
    }
  }
}

TEST_CASE("several products in 8 bits in one launch have the bits of one by one") {
  for (const auto type : quantised_types) {
    cuda::with_weight_type(type, [&]<WeightType t>(cuda::TypeConstant<t>) {
      if constexpr (is_quantised(t)) {
        const auto check = [](const std::vector<int>& n, std::int64_t k, std::int64_t m) {
          std::vector<cuda::RoundedPiece> rounded(static_cast<std::size_t>(cuda::gemv_rounded_pieces(m, k)));
          check_together(t, n, k, m, in_bytes, 1e-5, [&](const auto& arguments, auto* stream) {
            cuda::gemv_bytes<t>(arguments, rounded.data(), 2, stream);  // so that blocks go from one W to the next
          });
        };
        const std::int64_t block = layout_of(t).block;
        for (const auto& n : uneven_rows) check(n, 3 * block, 1);
        check({1, 7, 5}, 2048 + block, 1);
        for (std::int64_t m = 2; m <= 9; ++m)
          check(uneven_rows[static_cast<std::size_t>(m) % uneven_rows.size()], block, m);
        check({3, 2, 1}, 2048 + block, 3);
      }
    });
  }
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
