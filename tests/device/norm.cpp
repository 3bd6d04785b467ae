// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <troika/device/host/elementwise.hpp>
#include <troika/device/host/norm.hpp>

#include "inputs.hpp"

using namespace troika;
using namespace troika::test;

namespace {

struct Rows {
  std::int64_t rows, d;
  std::vector<float> x, weight, bias;
  Rows(std::int64_t count, std::int64_t length, float low = -1, float high = 1)
      : rows(count),
        d(length),
        x(random_values(rows * d, 1, low, high)),
        weight(random_values(d, 2)),
        bias(random_values(d, 3)) {}

  // The norm in double, and how far rounding may lead away from it.
  std::int64_t wrong(const std::vector<float>& y, bool layer, double eps) const {
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      double mean = 0, squares = 0, largest = 0;
      const float* row = x.data() + i * d;
      for (std::int64_t j = 0; layer && j < d; ++j) mean += double(row[j]) / double(d);
      for (std::int64_t j = 0; j < d; ++j) {
        squares += (double(row[j]) - mean) * (double(row[j]) - mean) / double(d);
        largest = std::max(largest, std::abs(double(row[j])));
      }
      const double scale = 1 / std::sqrt(squares + eps);
      for (std::int64_t j = 0; j < d; ++j) {
        const auto at = static_cast<std::size_t>(j);
        const double w = double(weight[at]), b = layer ? double(bias[at]) : 0;
        const double expected = (double(row[j]) - mean) * scale * w + b;
        const double bound =
            8 * epsilon * ((std::abs(double(row[j])) + (layer ? largest : 0)) * scale * std::abs(w) + std::abs(b));
        count += !close(double(y[static_cast<std::size_t>(i * d + j)]), expected, bound);
      }
    }
    return count;
  }
};

}  // namespace

TEST_CASE("norms equal their formulas in double, at every size, in place too") {
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    HostStream stream(device);
    for (const auto level : levels()) {
      for (const std::int64_t rows : {0, 1, 2, 3, 17, 70}) {
        for (const std::int64_t d : {1, 2, 3, 5, 7, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1031}) {
          const Rows input(rows, d);
          auto y = input.x;
          CAPTURE(threads, to_string(level), rows, d);
          rms_norm(stream, view(input.x, {rows, d}), input.weight, 1e-5f, view(y, {rows, d}), level);
          REQUIRE(input.wrong(y, false, double(1e-5f)) == 0);
          y = input.x;
          rms_norm(stream, view(std::as_const(y), {rows, d}), input.weight, 1e-5f, view(y, {rows, d}), level);
          REQUIRE(input.wrong(y, false, double(1e-5f)) == 0);
          layer_norm(stream, view(input.x, {rows, d}), input.weight, input.bias, 1e-12f, view(y, {rows, d}), level);
          if (d > 1)
            REQUIRE(input.wrong(y, true, double(1e-12f)) == 0);
          else
            for (std::int64_t i = 0; i < rows; ++i) REQUIRE(y[static_cast<std::size_t>(i)] == input.bias[0]);
          y = input.x;
          layer_norm(stream, view(std::as_const(y), {rows, d}), input.weight, input.bias, 1e-5f, view(y, {rows, d}),
                     level);
          REQUIRE(input.wrong(y, true, double(1e-5f)) == 0);
        }
      }
    }
  }
}

TEST_CASE("a residual that is added on the way to a norm has the bits of sum and norm one after the other") {
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    HostStream stream(device);
    for (const auto level : levels()) {
      for (const std::int64_t rows : {0, 1, 3, 70}) {
        for (const std::int64_t d : {1, 5, 16, 17, 64, 129, 1031}) {
          const Rows input(rows, d);
          const Shape shape{rows, d};
          const auto before = random_values(rows * d, 4);
          std::vector<float> sum(before.size()), expected(before.size());
          add(stream, view(input.x, shape), view(before, shape), view(sum, shape), level);
          rms_norm(stream, view(std::as_const(sum), shape), input.weight, 1e-5f, view(expected, shape), level);
          for (const bool in_place : {false, true}) {
            auto residual = before, x = input.x, other = x;
            auto& y = in_place ? x : other;
            CAPTURE(threads, to_string(level), rows, d, in_place);
            add_rms_norm(stream, view(std::as_const(x), shape), view(residual, shape), input.weight, 1e-5f,
                         view(y, shape), level);
            REQUIRE(residual == sum);
            REQUIRE(y == expected);
          }
        }
      }
    }
  }
  HostDevice device;
  HostStream stream(device);
  std::vector<float> x(12), residual(12), weight(4);
  REQUIRE_THROWS_AS(
      add_rms_norm(stream, view(std::as_const(x), {3, 4}), view(residual, {4, 3}), weight, 1e-5f, view(x, {3, 4})),
      Error);
}

TEST_CASE("a layer norm far from zero keeps its digits") {
  HostDevice device;
  HostStream stream(device);
  const Rows input(3, 1000, 1000, 1001);
  for (const auto level : levels()) {
    auto y = input.x;
    layer_norm(stream, view(input.x, {3, 1000}), input.weight, input.bias, 1e-5f, view(y, {3, 1000}), level);
    REQUIRE(input.wrong(y, true, double(1e-5f)) == 0);
  }
}

TEST_CASE("NaN in a row stays in that row") {
  HostDevice device;
  HostStream stream(device);
  for (const auto level : levels()) {
    Rows input(3, 37);
    input.x[37 + 36] = std::numeric_limits<float>::quiet_NaN();
    for (const bool layer : {false, true}) {
      std::vector<float> y(input.x.size());
      if (layer)
        layer_norm(stream, view(input.x, {3, 37}), input.weight, input.bias, 1e-5f, view(y, {3, 37}), level);
      else
        rms_norm(stream, view(input.x, {3, 37}), input.weight, 1e-5f, view(y, {3, 37}), level);
      for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(std::isnan(y[i]) == (i / 37 == 1));
    }
  }
}

TEST_CASE("norms refuse weights of another length") {
  HostDevice device;
  HostStream stream(device);
  const auto x = random_values(12, 1), w = random_values(4, 2);
  std::vector<float> y(12);
  REQUIRE_THROWS_WITH(rms_norm(stream, view(x, {4, 3}), w, 1e-5f, view(y, {4, 3})),
                      Catch::Matchers::ContainsSubstring("(4, 3)"));
  REQUIRE_THROWS_AS(layer_norm(stream, view(x, {3, 4}), w, std::span(w).first(3), 1e-5f, view(y, {3, 4})), Error);
  REQUIRE_THROWS_AS(rms_norm(stream, view(x, {12}), w, 1e-5f, view(y, {12})), Error);
}
