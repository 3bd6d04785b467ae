// SPDX-License-Identifier: Apache-2.0
#include <support/catch.hpp>

#include <kernels/norm.cuh>
#include <kernels/norm_truth.hpp>

#include "kernel_test.hpp"

using namespace troika;
using namespace troika::test;

namespace {

struct Case {
  bool centred, has_residual;
  std::int64_t rows, d;
  std::size_t offset = 0;  // in elements, from an address that packs may be read at
};

bool norm_is_right(const Case& c, Machine& machine) {
  const auto count = static_cast<std::size_t>(c.rows * c.d), d = static_cast<std::size_t>(c.d);
  const float shift = c.centred ? 100.0f : 0.0f;  // a mean that would cancel
  const auto x = numbers(count, 1, shift - 1, shift + 1), residual = numbers(count, 2);
  const auto weight = numbers(d, 3), bias = numbers(d, 4);
  Memory<float> x_memory(x, c.offset), residual_memory(residual, c.offset), weight_memory(weight), bias_memory(bias),
      y(count);
  const cuda::NormArguments arguments{x_memory.data(),
                                      c.has_residual ? residual_memory.data() : nullptr,
                                      weight_memory.data(),
                                      c.centred ? bias_memory.data() : nullptr,
                                      y.data(),
                                      c.rows,
                                      c.d,
                                      1e-5f};
  (c.centred ? cuda::layer_norm : cuda::rms_norm)(arguments, machine.stream(0));
  machine.run();

  std::size_t wrong_values = 0;
  const auto result = y.values(), sums = residual_memory.values();
  for (std::size_t row = 0; row < static_cast<std::size_t>(c.rows); ++row) {
    const auto of = [&](const std::vector<float>& values) { return std::span(values).subspan(row * d, d); };
    const auto expected = truth::norm(c.centred, of(x), c.has_residual ? of(residual) : std::span<const float>{},
                                      weight, c.centred ? bias : std::vector<float>{}, 1e-5);
    const auto got = of(result);
    wrong_values += wrong(std::vector<float>(got.begin(), got.end()), expected, c.centred ? 2e-4 : 2e-6);
  }
  for (std::size_t i = 0; c.has_residual && i < count; ++i) wrong_values += sums[i] != x[i] + residual[i];
  return wrong_values == 0 && y.intact() && residual_memory.intact();
}

}  // namespace

TEST_CASE("norm kernels equal their formula, at every size, with and without a residual") {
  for (const auto& schedule : schedules()) {
    for (const bool centred : {false, true}) {
      for (const std::int64_t d : {1, 3, 4, 31, 64, 257, 1028}) {
        const bool has_residual = d % 2 == 0;
        CAPTURE(static_cast<int>(schedule.order), centred, d);
        Machine machine(schedule);
        CHECK(norm_is_right({centred, has_residual, 3, d}, machine));
        CHECK(norm_is_right({centred, !has_residual, 1, d}, machine));
        CHECK(norm_is_right({centred, has_residual, 2, d, 1}, machine));
      }
    }
  }
}

TEST_CASE("norm kernels need each of their barriers") {
  CHECK(misses_every_barrier([](Machine& machine) { return norm_is_right({false, true, 1, 300}, machine); }));
  CHECK(misses_every_barrier([](Machine& machine) { return norm_is_right({true, true, 1, 300}, machine); }));
}
