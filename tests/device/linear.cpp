// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <troika/device/host/gemm.hpp>
#include <troika/device/host/linear.hpp>

#include "inputs.hpp"

using namespace troika;
using namespace troika::test;

namespace {

// How many elements of y are farther from a sum in double than the rounding of k additions explains.
template <class W>
std::int64_t wrong(const std::vector<float>& x, const std::vector<W>& w, const std::vector<float>& bias,
                   const std::vector<float>& y, std::int64_t m, std::int64_t n, std::int64_t k) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = bias.empty() ? 0 : double(bias[static_cast<std::size_t>(j)]), size = std::abs(sum);
      for (std::int64_t p = 0; p < k; ++p) {
        const double product = double(x[static_cast<std::size_t>(i * k + p)]) *
                               double(static_cast<float>(w[static_cast<std::size_t>(j * k + p)]));
        sum += product;
        size += std::abs(product);
      }
      const double bound = epsilon * size * (4 + static_cast<double>(k) / 4);
      count += !close(double(y[static_cast<std::size_t>(i * n + j)]), sum, bound);
    }
  }
  return count;
}

// The activations that a product with bf16 weights sees.
template <class W>
std::vector<float> as_multiplied(HostDevice& device, CpuLevel level, std::vector<float> x) {
  if (std::is_same_v<W, bf16> && level == CpuLevel::avx512 && cpu_has_bf16() &&
      device.options().precision == Precision::fast) {
    for (auto& value : x) value = static_cast<float>(static_cast<bf16>(value));
  }
  return x;
}

template <class W>
void check(HostDevice& device, CpuLevel level, std::int64_t m, std::int64_t n, std::int64_t k, bool with_bias) {
  HostStream stream(device);
  const auto x = random_values(m * k, 1), bias = random_values(with_bias ? n : 0, 3);
  const auto w = random_values<W>(n * k, 2);
  // One more than y needs, on both sides: nothing may be written there.
  std::vector<float> y(static_cast<std::size_t>(m * n + 2), 77);
  linear(stream, view(x, {m, k}), view(w, {n, k}), View<float>{y.data() + 1, {m, n}}, with_bias ? bias.data() : nullptr,
         level);
  INFO("m " << m << " n " << n << " k " << k << " bias " << with_bias << " level " << to_string(level) << " dtype "
            << to_string(dtype_of<W>) << " threads " << device.team().size() << " exact "
            << (device.options().precision == Precision::exact));
  REQUIRE(y.front() == 77);
  REQUIRE(y.back() == 77);
  REQUIRE(wrong(as_multiplied<W>(device, level, x), w, bias, {y.begin() + 1, y.end() - 1}, m, n, k) == 0);
}

}  // namespace

TEMPLATE_TEST_CASE("linear is x times w transposed plus bias, at every size", "", float, f16, bf16) {
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    for (const auto level : levels()) {
      for (const std::int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17, 25}) {
        for (const std::int64_t n : {1, 2, 3, 5, 7, 17, 33, 65}) {
          for (const std::int64_t k : {1, 2, 3, 5, 7, 17, 33})
            check<TestType>(device, level, m, n, k, (m + n + k) % 2 == 0);
        }
      }
      for (const std::int64_t m : {1, 3, 8, 19, 63, 64, 65}) {
        for (const std::int64_t n : {63, 64, 65, 127, 128, 129}) {
          for (const std::int64_t k : {64, 127, 131}) check<TestType>(device, level, m, n, k, (m + n + k) % 2 == 0);
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("linear is right across the edges of its cache blocks", "", float, bf16) {
  for (const int threads : {1, 2, 3}) {
    auto device = device_of(threads);
    for (const auto level : levels()) {
      check<TestType>(device, level, 40, 300, 1031, true);
      check<TestType>(device, level, 1000, 37, 397, true);
      check<TestType>(device, level, 13, 515, 385, false);
      check<TestType>(device, level, 1, 509, 1031, true);
      check<TestType>(device, level, 7, 509, 1031, false);
      check<TestType>(device, level, 50, 40, 2049, true);
    }
  }
}

TEST_CASE("a device that is exact keeps activations in f32 before weights in bf16") {
  auto device = device_of(2, Precision::exact);
  for (const auto level : levels()) {
    for (const std::int64_t m : {1, 2, 3, 8, 13, 33, 70}) {
      for (const std::int64_t k : {1, 31, 64, 131}) check<bf16>(device, level, m, 67, k, k % 2 == 0);
    }
  }
}

TEST_CASE("a product without depth is the bias, without rows or columns nothing") {
  auto device = device_of(2);
  HostStream stream(device);
  const std::vector<float> none, bias{1, 2, 3};
  for (const auto level : levels()) {
    for (const std::int64_t m : {1, 2, 40}) {
      std::vector<float> y(static_cast<std::size_t>(3 * m), 77);
      linear(stream, view(none, {m, 0}), view(none, {3, 0}), view(y, {m, 3}), bias.data(), level);
      for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(y[i] == bias[i % 3]);
      linear(stream, view(none, {m, 0}), view(none, {3, 0}), view(y, {m, 3}), nullptr, level);
      for (const float value : y) REQUIRE(value == 0);
    }
    std::vector<float> y;
    const auto x = random_values(40 * 5, 1), w = random_values(3 * 5, 2);
    linear(stream, view(none, {0, 5}), view(w, {3, 5}), view(y, {0, 3}), nullptr, level);
    linear(stream, view(x, {40, 5}), view(none, {0, 5}), view(y, {40, 0}), nullptr, level);
    linear(stream, view(none, {0, 0}), view(none, {0, 0}), view(y, {0, 0}), nullptr, level);
  }
}

TEMPLATE_TEST_CASE("NaN and infinities go where the formula puts them, also past a zero", "", float, bf16) {
  auto device = device_of(1);
  HostStream stream(device);
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const auto level : levels()) {
    for (const std::int64_t m : {1, 3, 8, 40}) {
      const std::int64_t n = 37, k = 41;
      std::vector<float> x(static_cast<std::size_t>(m * k), 0.0f), y(static_cast<std::size_t>(m * n));
      std::vector<TestType> w(static_cast<std::size_t>(n * k), TestType(1.0f));
      w[static_cast<std::size_t>(5 * k + 40)] = TestType(nan);
      w[static_cast<std::size_t>(6 * k + 3)] = TestType(infinity);  // times 0 is NaN
      x[static_cast<std::size_t>((m - 1) * k + 7)] = infinity;
      linear(stream, view(x, {m, k}), view(w, {n, k}), view(y, {m, n}), nullptr, level);
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          const float value = y[static_cast<std::size_t>(i * n + j)];
          CAPTURE(m, i, j, to_string(level));
          if (j == 5 || j == 6)
            REQUIRE(std::isnan(value));
          else if (i == m - 1)
            REQUIRE(value == infinity);
          else
            REQUIRE(value == 0);
        }
      }
    }
  }
}

TEST_CASE("linear refuses shapes that do not fit, and says which they are") {
  HostDevice device;
  HostStream stream(device);
  const auto x = random_values(12, 1), w = random_values(20, 2);
  std::vector<float> y(12);
  REQUIRE_THROWS_WITH(linear(stream, view(x, {3, 4}), view(w, {4, 5}), view(y, {3, 4})),
                      Catch::Matchers::ContainsSubstring("(4, 5)"));
  REQUIRE_THROWS_AS(linear(stream, view(x, {3, 4}), view(w, {5, 4}), view(y, {3, 4})), Error);
  REQUIRE_THROWS_AS(linear(stream, view(x, {12}), view(w, {5, 4}), view(y, {3, 4})), Error);
}

TEST_CASE("gemm takes either side transposed, rows apart, and adds to what is there") {
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    HostStream stream(device);
    for (const auto level : levels()) {
      for (const bool a_turned : {false, true}) {
        for (const bool b_turned : {false, true}) {
          for (const auto [m, n, k] : {std::array<std::int64_t, 3>{3, 5, 7}, {70, 45, 400}, {300, 33, 65}}) {
            const auto a = random_values(m * k, 1), b = random_values(n * k, 2), before = random_values(m * (n + 3), 3);
            auto c = before;
            const Operand<float> left = a_turned ? Operand<float>{a.data(), 1, m} : Operand<float>{a.data(), k};
            const Operand<float> right = b_turned ? Operand<float>{b.data(), 1, n} : Operand<float>{b.data(), k};
            gemm(stream, m, n, k, left, right, c.data(), n + 3, nullptr, true, level);
            std::int64_t failures = 0;
            for (std::int64_t i = 0; i < m; ++i) {
              for (std::int64_t j = 0; j < n + 3; ++j) {
                const auto at = static_cast<std::size_t>(i * (n + 3) + j);
                double sum = double(before[at]), size = std::abs(sum);
                for (std::int64_t p = 0; j < n && p < k; ++p) {
                  const double product = double(*left.at(i, p)) * double(*right.at(j, p));
                  sum += product;
                  size += std::abs(product);
                }
                failures += !close(double(c[at]), sum, epsilon * size * (4 + static_cast<double>(k) / 4));
              }
            }
            CAPTURE(m, n, k, a_turned, b_turned, to_string(level));
            REQUIRE(failures == 0);
          }
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("on an invariant device a row has the same bits alone and among others, in every team", "", float,
                   f16, bf16) {
  for (const auto level : levels()) {
    const std::int64_t m = 70, n = 200, k = 333;
    const auto x = random_values(m * k, 1);
    const auto w = random_values<TestType>(n * k, 2);
    std::vector<float> whole;
    for (const int threads : {1, 2}) {
      for (const auto together : {m, std::int64_t{1}, std::int64_t{9}, std::int64_t{33}}) {
        auto device = device_of(threads, Precision::exact, true);
        HostStream stream(device);
        std::vector<float> y(static_cast<std::size_t>(m * n));
        for (std::int64_t i = 0; i < m; i += together) {
          const auto some = std::min(together, m - i);
          linear(stream, View<const float>(x.data() + i * k, {some, k}), view(w, {n, k}),
                 View<float>(y.data() + i * n, {some, n}), nullptr, level);
        }
        if (whole.empty()) whole = y;
        INFO(to_string(level) << ", " << threads << " threads, " << together << " rows at once");
        CHECK(y == whole);
      }
    }
    CHECK(wrong(x, w, {}, whole, m, n, k) == 0);
  }
}
