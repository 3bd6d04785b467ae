// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <troika/device/host/experts.hpp>

#include "inputs.hpp"

using namespace troika;
using namespace troika::test;

TEST_CASE("each token takes the experts with the largest scores, with their share of the softmax") {
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    HostStream stream(device);
    for (const std::int64_t experts : {1, 2, 7, 128}) {
      for (const std::int64_t used : {1, 2, 7, 8}) {
        if (used > experts) continue;
        for (const bool normalized : {false, true}) {
          constexpr std::int64_t tokens = 133;
          const auto scores = random_values(tokens * experts, 5, -4, 4);
          std::vector<std::int32_t> chosen(static_cast<std::size_t>(tokens * used));
          std::vector<float> weights(chosen.size());
          choose_experts(stream, view(scores, {tokens, experts}), normalized, view(chosen, {tokens, used}),
                         view(weights, {tokens, used}));
          for (std::int64_t t = 0; t < tokens; ++t) {
            const float* const row = scores.data() + t * experts;
            std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
            std::iota(order.begin(), order.end(), 0);
            std::ranges::stable_sort(order, [&](auto a, auto b) { return row[a] > row[b]; });
            double total = 0;
            for (std::int64_t e = 0; e < (normalized ? used : experts); ++e)
              total += std::exp(double(row[order[static_cast<std::size_t>(e)]]));
            for (std::int64_t k = 0; k < used; ++k) {
              const auto at = static_cast<std::size_t>(t * used + k);
              CAPTURE(experts, used, normalized, t, k);
              REQUIRE(chosen[at] == order[static_cast<std::size_t>(k)]);
              REQUIRE(close(double(weights[at]), std::exp(double(row[chosen[at]])) / total, 1e-6));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("of equal scores the first is taken, and scores that are no numbers do not choose an expert twice") {
  HostDevice device;
  HostStream stream(device);
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> scores{1, 3, 3, 3, nan, nan, nan, nan};
  std::vector<std::int32_t> chosen(6);
  std::vector<float> weights(6);
  choose_experts(stream, view(scores, {2, 4}), true, view(chosen, {2, 3}), view(weights, {2, 3}));
  CHECK(chosen == std::vector<std::int32_t>{1, 2, 3, 0, 1, 2});
  CHECK(weights[0] == Approx(1.0 / 3));
  CHECK(std::isnan(weights[3]));
  CHECK_THROWS_AS(choose_experts(stream, view(scores, {2, 4}), true, view(chosen, {2, 3}), view(weights, {3, 2})),
                  Error);
}

TEST_CASE("rows are gathered, and added to the rows they came from") {
  for (const int threads : {1, 2}) {
    auto device = device_of(threads);
    HostStream stream(device);
    const auto x = random_values(9 * 5, 1), sum = random_values(9 * 5, 2);
    const std::vector<std::int32_t> rows{7, 0, 3};
    const std::vector<float> weights{0.5f, -2, 0};
    std::vector<float> y(15);
    auto result = sum;
    gather_rows(stream, view(x, {9, 5}), rows, view(y, {3, 5}));
    add_rows(stream, view(std::as_const(y), {3, 5}), rows, weights, view(result, {9, 5}));
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t j = 0; j < 5; ++j) {
        const auto at = static_cast<std::size_t>(rows[i]) * 5 + j;
        CHECK(y[i * 5 + j] == x[at]);
        CHECK(result[at] == Approx(double(sum[at]) + double(weights[i]) * double(x[at])).margin(1e-6));
      }
    }
    CHECK(result[5] == sum[5]);
  }
}
